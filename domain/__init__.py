"""What is true: items, reservations, the outbox. Knows no HTTP and no broker."""
