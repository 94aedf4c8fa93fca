"""An agent at a database: its keys, the states that it reads, the changesets that it signs and pushes."""
