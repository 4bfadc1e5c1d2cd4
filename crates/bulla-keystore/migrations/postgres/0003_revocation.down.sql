DROP TABLE floor_generation;
DROP TABLE peer_census;
DROP TABLE exemptions;
DROP TABLE peer_floors;
DROP TABLE statement;
DROP TABLE lowest_epochs;
DROP TABLE revoked_kids;
