DROP TABLE IF EXISTS legacy_keys;
