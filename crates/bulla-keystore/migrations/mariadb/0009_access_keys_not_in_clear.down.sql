-- Room for secrets in clear.
ALTER TABLE access_keys ADD COLUMN IF NOT EXISTS secret_key VARCHAR(2048);
