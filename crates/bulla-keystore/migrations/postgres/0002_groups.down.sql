DROP TABLE group_keys;
DROP TABLE group_members;
DROP TABLE member_groups;
