//! What roles are called.

use bulla_seal::Digest;

/// Longest name in PostgreSQL; MariaDB takes longer ones.
const LONGEST: usize = 63;

/// A database role: of a component type, or of auditors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseRole {
    /// Its name in the database.
    pub name: String,
    /// The component type; `None` for auditors.
    pub component: Option<String>,
}

/// As whom a keystore is open on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseLogin {
    /// The user.
    pub user: String,
    /// Whether it may do everything on that server.
    pub superuser: bool,
    /// Whether it owns the keystore's tables, or may change and drop them: what a running control
    /// plane has no need of.
    pub owner: bool,
}

impl DatabaseRole {
    /// The role of a component type in a database of that name.
    pub(super) fn of_component(database: &str, component: &str) -> Self {
        let name = fitting(format!("{}_component_{component}", plain(database)));
        Self { name, component: Some(component.to_owned()) }
    }

    /// The role of those who may see everything but secrets.
    pub(super) fn of_auditors(database: &str) -> Self {
        Self { name: fitting(format!("{}_auditor", plain(database))), component: None }
    }

    /// `control`, `component` or `auditor`.
    pub(super) fn kind(&self) -> Kind<'_> {
        match self.component.as_deref() {
            None => Kind::Auditor,
            Some(super::CONTROL) => Kind::Control,
            Some(component) => Kind::Component(component),
        }
    }
}

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Control,
    Component(&'a str),
    Auditor,
}

/// Letters, digits and `_`, so that a name needs no escapes in an address.
fn plain(database: &str) -> String {
    database.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Names that are too long end in a digest of the whole.
fn fitting(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let digest = Digest::of(name.as_bytes()).0;
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let kept: String = name.chars().take(LONGEST - 17).collect();
    format!("{kept}_{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let role = DatabaseRole::of_component("keys", "conductor");
        assert_eq!(role.name, "keys_component_conductor");
        assert_eq!(DatabaseRole::of_auditors("my-keys").name, "my_keys_auditor");
        let long = |last: &str| format!("{}{last}", "c".repeat(60));
        let one = DatabaseRole::of_component("keys", &long("1"));
        let two = DatabaseRole::of_component("keys", &long("2"));
        assert!(one.name.len() == LONGEST && two.name.len() == LONGEST && one.name != two.name);
        assert_eq!(DatabaseRole::of_component("keys", "control").kind(), Kind::Control);
    }
}
