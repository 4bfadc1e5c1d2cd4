DROP TABLE claim_ledger;
DROP TABLE claim_sender;
DROP TABLE claim;
