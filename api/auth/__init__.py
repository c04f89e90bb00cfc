"""Authentication: who has sent a request. Only here, tokens are known; the rest sees principals."""
