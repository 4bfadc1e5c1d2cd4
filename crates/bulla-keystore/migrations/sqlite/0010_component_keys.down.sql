DROP TABLE component_keys;
DROP TABLE database_roles;
