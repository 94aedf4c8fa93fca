"""Connections to the database, and the SQL that the client runs there."""
