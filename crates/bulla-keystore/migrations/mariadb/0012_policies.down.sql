DROP TABLE IF EXISTS policy_differences;
DROP TABLE IF EXISTS policy_document;
DROP TABLE IF EXISTS policies;
