DROP TABLE IF EXISTS group_keys;
DROP TABLE IF EXISTS group_members;
DROP TABLE IF EXISTS member_groups;
