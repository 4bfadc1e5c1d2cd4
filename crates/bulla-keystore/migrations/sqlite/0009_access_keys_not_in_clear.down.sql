-- Room for secrets in clear.
ALTER TABLE access_keys ADD COLUMN secret_key TEXT;
