"""How fast, how soon and how robustly the outbox delivers."""
