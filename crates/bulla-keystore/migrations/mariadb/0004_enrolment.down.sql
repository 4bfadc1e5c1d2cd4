DROP TABLE IF EXISTS join_states;
DROP TABLE IF EXISTS join_tokens;
