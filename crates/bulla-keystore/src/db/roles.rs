//! Rows of `database_roles`, and what the database's own catalogue says of roles.

use super::{Conn, Dialect, args};
use crate::error::Result;

/// The roles that were made: name, and the component type if it is one's.
pub(crate) async fn list(conn: &mut Conn) -> Result<Vec<(String, Option<String>)>> {
    let sql = "SELECT role, component FROM database_roles ORDER BY role";
    let rows: Vec<(String, Option<String>)> = conn.all(sql, &[]).await?;
    Ok(rows)
}

/// Whether the database has a role of that name.
pub(crate) async fn exists(conn: &mut Conn, role: &str) -> Result<bool> {
    let sql = match conn.dialect() {
        Dialect::Postgres => "SELECT count(*) FROM pg_roles WHERE rolname = ?",
        _ => {
            "SELECT count(*) FROM information_schema.user_privileges
             WHERE grantee = concat('''', ?, '''@''%''')"
        }
    };
    Ok(conn.one::<i64>(sql, args![role]).await? > 0)
}

/// Whether a role of that name has rights beyond this database's tables, or (PostgreSQL) stands in
/// for another role.
pub(crate) async fn is_strong(conn: &mut Conn, role: &str) -> Result<bool> {
    if conn.dialect() == Dialect::MariaDb {
        let sql = "SELECT (SELECT count(*) FROM information_schema.user_privileges
                           WHERE grantee = concat('''', ?1, '''@''%''') AND privilege_type <> 'USAGE')
                   + (SELECT count(*) FROM information_schema.schema_privileges
                      WHERE grantee = concat('''', ?1, '''@''%'''))
                   + (SELECT count(*) FROM information_schema.table_privileges
                      WHERE grantee = concat('''', ?1, '''@''%''') AND table_schema <> database())";
        return Ok(conn.one::<i64>(sql, args![role]).await? > 0);
    }
    let sql = "SELECT count(*) FROM pg_roles r WHERE r.rolname = ?
               AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
                   OR r.rolbypassrls
                   OR EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid))";
    Ok(conn.one::<i64>(sql, args![role]).await? > 0)
}

/// Who this connection is logged in as, whether as one who may do everything on the server, and
/// whether as one who owns the tables here (MariaDB, where nobody does: who may change or drop them).
pub(crate) async fn login(conn: &mut Conn) -> Result<(String, bool, bool)> {
    let sql = match conn.dialect() {
        Dialect::Postgres => {
            "SELECT r.rolname::text, r.rolsuper::int::bigint,
                 (SELECT count(*) FROM pg_class c WHERE c.relkind = 'r'
                     AND c.relnamespace = current_schema()::regnamespace
                     AND pg_has_role(c.relowner, 'MEMBER'))
             FROM pg_roles r WHERE r.rolname = current_user"
        }
        _ => {
            "SELECT me.name,
                 (SELECT count(*) FROM information_schema.user_privileges p
                     WHERE p.grantee = me.grantee AND p.privilege_type = 'SUPER'),
                 (SELECT count(*) FROM information_schema.user_privileges p
                     WHERE p.grantee = me.grantee AND p.privilege_type IN ('ALTER', 'DROP'))
                 + (SELECT count(*) FROM information_schema.schema_privileges p
                     WHERE p.grantee = me.grantee AND p.table_schema = database()
                     AND p.privilege_type IN ('ALTER', 'DROP'))
                 + (SELECT count(*) FROM information_schema.table_privileges p
                     WHERE p.grantee = me.grantee AND p.table_schema = database()
                     AND p.privilege_type IN ('ALTER', 'DROP'))
             FROM (SELECT substring_index(current_user(), '@', 1) AS name, concat('''',
                 substring_index(current_user(), '@', 1), '''@''',
                 substring_index(current_user(), '@', -1), '''') AS grantee) me"
        }
    };
    let (name, superuser, owner): (String, i64, i64) = conn.one(sql, &[]).await?;
    Ok((name, superuser > 0, owner > 0))
}

/// Database and schema that this connection is in; the schema is empty in MariaDB.
pub(crate) async fn place(conn: &mut Conn) -> Result<(String, String)> {
    let sql = match conn.dialect() {
        Dialect::Postgres => "SELECT current_database()::text, current_schema()::text",
        _ => "SELECT database(), ''",
    };
    conn.one(sql, &[]).await
}

/// Every table here with its columns, in their order.
pub(crate) async fn columns(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    let sql = match conn.dialect() {
        Dialect::Postgres => {
            "SELECT c.relname::text, a.attname::text FROM pg_class c
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
             ORDER BY c.relname, a.attnum"
        }
        Dialect::MariaDb => {
            "SELECT c.table_name, c.column_name FROM information_schema.columns c
             JOIN information_schema.tables t ON t.table_schema = c.table_schema
                 AND t.table_name = c.table_name AND t.table_type = 'BASE TABLE'
             WHERE c.table_schema = database() ORDER BY c.table_name, c.ordinal_position"
        }
        Dialect::Sqlite => {
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
             WHERE t.type = 'table' ORDER BY t.name, c.cid"
        }
    };
    conn.all(sql, &[]).await
}

/// What a user of MariaDB may do with tables here: table, right, column (empty: the whole table).
pub(crate) async fn rights(conn: &mut Conn, role: &str) -> Result<Vec<(String, String, String)>> {
    let sql = "SELECT table_name, privilege_type, '' FROM information_schema.table_privileges
               WHERE table_schema = database() AND grantee = concat('''', ?1, '''@''%''')
               UNION ALL
               SELECT table_name, privilege_type, column_name
               FROM information_schema.column_privileges
               WHERE table_schema = database() AND grantee = concat('''', ?1, '''@''%''')";
    conn.all(sql, args![role]).await
}
