"""Running Holdfast on one machine, with servers that come along."""
