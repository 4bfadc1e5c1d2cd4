//! Licence expressions (SPDX specification 2.3, annex D), as far as Cargo manifests use them.

/// Whether the expression can be met with licences that `allowed` accepts. An empty or malformed
/// one can't.
pub(crate) fn satisfied(expression: &str, allowed: impl Fn(&str) -> bool) -> bool {
    // A slash is how crates wrote OR before SPDX.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed: &allowed };
    parser.any() == Some(true) && parser.words.is_empty()
}

struct Parser<'a, 't, F> {
    words: &'a [&'t str],
    allowed: &'a F,
}

impl<'t, F: Fn(&str) -> bool> Parser<'_, 't, F> {
    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.skip("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.skip("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.skip("(") {
            let met = self.any()?;
            return self.skip(")").then_some(met);
        }
        let licence = self.next()?;
        if self.skip("WITH") {
            let exception = self.next()?;
            return Some((self.allowed)(&format!("{licence} WITH {exception}")));
        }
        Some((self.allowed)(licence))
    }

    fn next(&mut self) -> Option<&'t str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn skip(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = self.words.get(1..).unwrap_or_default();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(expression: &str) -> bool {
        satisfied(expression, |licence| ["MIT", "ISC", "Apache-2.0 WITH X"].contains(&licence))
    }

    #[test]
    fn expressions() {
        assert!(ok("MIT"));
        assert!(ok("MIT OR GPL-3.0"));
        assert!(ok("GPL-3.0/MIT"));
        assert!(ok("MIT AND ISC"));
        assert!(ok("MIT AND (ISC OR GPL-3.0)"));
        assert!(ok("Apache-2.0 WITH X OR GPL-3.0"));
        assert!(!ok("MIT AND GPL-3.0"));
        assert!(!ok("(MIT OR ISC) AND GPL-3.0"));
        assert!(!ok("Apache-2.0"));
        assert!(!ok(""));
        assert!(!ok("(MIT"));
        assert!(!ok("MIT ISC"));
    }
}
