-- Where secrets in clear were; none is left here.
ALTER TABLE access_keys DROP COLUMN IF EXISTS secret_key;
