"""The keys of bin/: each opens one thing, with PostgreSQL alone, says what it did, and ends."""
