"""One suite over every destination: whatever its outside does, nothing is lost and nothing overtakes."""
