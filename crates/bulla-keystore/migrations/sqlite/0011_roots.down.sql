DROP TABLE roots;
