DROP TABLE IF EXISTS service_keys;
