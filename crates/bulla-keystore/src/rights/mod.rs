//! Rights in the keystore's database: a role for each component type and one for auditors, each with
//! the tables, columns and rows that it needs and no others (`bulla db grants`).
//!
//! PostgreSQL: column grants and row-level security. MariaDB, which has neither row security nor
//! transactions around grants: column grants, and views of what belongs to whoever looks. The
//! owner of the tables, who makes the roles, migrates the schema and is used for nothing else.

pub(crate) mod apply;
mod mariadb;
mod names;
mod password;
mod postgres;
mod tables;

pub use apply::{GrantedRole, GrantsState, Plan};
pub use names::{DatabaseLogin, DatabaseRole};
pub use password::RolePassword;

/// The component type of the control plane, which writes the keystore.
pub(crate) const CONTROL: &str = "control";
