DROP TABLE IF EXISTS access_keys;
