"""Other queues on the same PostgreSQL, for comparison."""
