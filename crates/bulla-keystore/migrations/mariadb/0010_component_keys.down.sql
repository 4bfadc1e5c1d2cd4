DROP TABLE IF EXISTS component_keys;
DROP TABLE IF EXISTS database_roles;
