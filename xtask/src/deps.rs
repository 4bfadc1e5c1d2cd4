//! The bans and licences of `deny.toml`, checked with what cargo itself knows, so that they hold
//! where cargo-deny is not installed. `deny.toml` stays the only list.

use std::collections::BTreeMap;
use std::fs;

use crate::console::root;
use crate::run::Job;
use crate::spdx;

/// What `deny.toml` says.
#[derive(Debug, Default, PartialEq)]
struct Rules {
    /// Banned crates, each with its reason.
    banned: BTreeMap<String, String>,
    /// Licences that are allowed.
    allowed: Vec<String>,
}

/// A crate in the graph.
#[derive(Debug, PartialEq)]
struct Package<'a> {
    name: &'a str,
    licence: &'a str,
    features: &'a str,
}

/// Looks at everything that is built for this machine, with every feature on.
///
/// # Errors
/// Names each crate that breaks a rule, and the rule.
pub(crate) fn check() -> Result<String, String> {
    let text = fs::read_to_string(root().join("deny.toml"))
        .map_err(|error| format!("deny.toml: {error}"))?;
    let rules = Rules::read(&text)?;
    let tree = ["tree", "--workspace", "--all-features", "--edges", "normal,build,dev"];
    let tree = Job::cargo().args(tree).args(["--prefix", "none", "--format", "{p}|{l}|{f}"]);
    let tree = tree.output()?;
    let packages: Vec<Package<'_>> = tree.lines().filter_map(Package::read).collect();
    let wrong: Vec<String> = packages.iter().flat_map(|package| rules.broken(package)).collect();
    if packages.is_empty() {
        return Err("cargo tree listed nothing".to_owned());
    }
    if !packages.iter().any(|package| package.name == "rustls") {
        return Err("rustls is not in the graph: is cargo tree's output still understood?".into());
    }
    if wrong.is_empty() {
        let count = tree.lines().filter(|line| !line.ends_with("(*)")).count();
        return Ok(format!("{count} crates keep the rules"));
    }
    Err(wrong.join("\n            "))
}

impl<'a> Package<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut parts = line.trim().splitn(3, '|');
        let name = parts.next()?.split_whitespace().next()?;
        let licence = parts.next()?;
        let features = parts.next()?.trim_end_matches("(*)").trim();
        Some(Self { name, licence, features })
    }
}

impl Rules {
    /// Reads the two lists; each entry stands on a line of its own.
    fn read(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        let mut list = "";
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            match line {
                "allow = [" | "deny = [" => list = line,
                "]" => list = "",
                _ if list == "deny = [" => {
                    let (name, reason) = ban(line)?;
                    rules.banned.insert(name, reason);
                }
                _ if list == "allow = [" => {
                    let licence = line.trim_end_matches(',').trim_matches('"');
                    rules.allowed.push(licence.to_owned());
                }
                _ => {}
            }
        }
        if rules.banned.is_empty() || rules.allowed.is_empty() {
            return Err("deny.toml: no bans or no licences found in it".to_owned());
        }
        Ok(rules)
    }

    fn broken(&self, package: &Package<'_>) -> Vec<String> {
        let name = package.name;
        let mut wrong = Vec::new();
        if let Some(reason) = self.banned.get(name) {
            wrong.push(format!("{name} is banned: {reason} (cargo tree -i {name})"));
        }
        if !spdx::satisfied(package.licence, |licence| self.allows(licence)) {
            wrong.push(format!("{name}: licence `{}` is not allowed", package.licence));
        }
        if name == "rustls" && !only_aws_lc(package.features) {
            let features = package.features;
            wrong.push(format!("rustls must have aws_lc_rs alone, it has: {features}"));
        }
        wrong
    }

    fn allows(&self, licence: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == licence)
    }
}

/// `{ crate = "ring", reason = "…" },`
fn ban(line: &str) -> Result<(String, String), String> {
    let value = |key: &str| {
        let (_, rest) = line.split_once(&format!("{key} = \""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    value("crate")
        .zip(value("reason"))
        .ok_or_else(|| format!("deny.toml: a ban needs a crate and a reason on one line: {line}"))
}

fn only_aws_lc(features: &str) -> bool {
    let has = |wanted: &str| features.split(',').any(|feature| feature.trim() == wanted);
    has("aws_lc_rs") && !has("ring")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
[licenses]
allow = [
    "MIT",
    # why
    "Apache-2.0",
]
[bans]
deny = [
    { crate = "ring", reason = "one provider" },
]
"#;

    #[test]
    fn reads_rules() {
        let rules = Rules::read(DENY).unwrap();
        assert_eq!(rules.allowed, ["MIT", "Apache-2.0"]);
        assert_eq!(rules.banned.get("ring").unwrap(), "one provider");
        assert!(Rules::read("[bans]").is_err());
        assert!(Rules::read("deny = [\n{ crate = \"ring\" },\n]").is_err());
    }

    #[test]
    fn finds_what_breaks_them() {
        let rules = Rules::read(DENY).unwrap();
        let broken = |line: &str| rules.broken(&Package::read(line).unwrap()).len();
        assert_eq!(broken("serde v1.0.0|MIT OR Apache-2.0|default,std"), 0);
        assert_eq!(broken("ring v0.17.14|Apache-2.0|"), 1);
        assert_eq!(broken("other v1.0.0|GPL-3.0-only|"), 1);
        assert_eq!(broken("other v1.0.0||"), 1);
        assert_eq!(broken("rustls v0.23.46|MIT|aws_lc_rs,std (*)"), 0);
        assert_eq!(broken("rustls v0.23.46|MIT|aws_lc_rs,ring,std"), 1);
        assert_eq!(broken("rustls v0.23.46|MIT|std"), 1);
    }
}
