//! `Content-Digest` (RFC 9530).

use aws_lc_rs::digest::{SHA256, SHA512, digest};

use super::fields;

/// What `Content-Digest` says of a body.
pub(super) fn of(body: &[u8]) -> String {
    format!("sha-256={}", fields::sequence(digest(&SHA256, body).as_ref()))
}

/// Whether the field names a body by a digest that is known here, and every one of those is right.
pub(crate) fn matches(field: &str, body: &[u8]) -> bool {
    let Ok(given) = fields::bytes(field) else { return false };
    let mut known = 0_usize;
    for (name, given) in &given {
        let algorithm = match name.as_str() {
            "sha-256" => &SHA256,
            "sha-512" => &SHA512,
            _ => continue,
        };
        if digest(algorithm, body).as_ref() != given.as_slice() {
            return false;
        }
        known += 1;
    }
    known > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9530 appendix B and RFC 9421 appendix B.2.
    const BODY: &[u8] = b"{\"hello\": \"world\"}";
    const IN_256: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    const IN_512: &str = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

    #[test]
    fn the_standards_own_examples() {
        assert_eq!(of(BODY), IN_256);
        for good in [IN_256, IN_512, &format!("{IN_256}, {IN_512}"), &format!("x=:AA==:, {IN_256}")]
        {
            assert!(matches(good, BODY), "{good}");
        }
    }

    #[test]
    fn a_wrong_or_unknown_digest_is_none() {
        let other = of(b"other");
        for bad in ["", "md5=:AA==:", "sha-256=:AA==:", &other, &format!("{IN_512}, {other}")] {
            assert!(!matches(bad, BODY), "{bad}");
        }
        assert!(!matches(IN_256, b"{\"hello\": \"World\"}"));
    }
}
