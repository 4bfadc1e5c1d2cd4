DROP TABLE join_states;
DROP TABLE join_tokens;
