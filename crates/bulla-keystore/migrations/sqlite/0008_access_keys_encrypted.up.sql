-- Room for encrypted secrets. After this every row's secret is encrypted, in batches.
ALTER TABLE access_keys ADD COLUMN encrypted_secret_key BLOB;
