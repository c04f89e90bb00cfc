"""One suite for every destination: whatever its server does, no event is lost, and none overtakes another."""
