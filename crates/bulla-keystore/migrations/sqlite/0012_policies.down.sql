DROP TABLE policy_differences;
DROP TABLE policy_document;
DROP TABLE policies;
