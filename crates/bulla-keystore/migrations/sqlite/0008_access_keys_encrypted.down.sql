-- Before this every row's secret is decrypted, in batches.
ALTER TABLE access_keys DROP COLUMN encrypted_secret_key;
