DROP TABLE pair_keys;
DROP TABLE audience_keys;
DROP TABLE instance_keys;
DROP TABLE credentials;
DROP TABLE principals;
DROP TABLE issuers;
DROP TABLE trust_domain;
