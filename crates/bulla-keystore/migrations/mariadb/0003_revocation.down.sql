DROP TABLE IF EXISTS floor_generation;
DROP TABLE IF EXISTS peer_census;
DROP TABLE IF EXISTS exemptions;
DROP TABLE IF EXISTS peer_floors;
DROP TABLE IF EXISTS statement;
DROP TABLE IF EXISTS lowest_epochs;
DROP TABLE IF EXISTS revoked_kids;
