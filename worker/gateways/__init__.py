"""Outside services whose answer changes a reservation."""
