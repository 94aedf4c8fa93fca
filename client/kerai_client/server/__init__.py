"""The private server: a PostgreSQL of one's own."""
