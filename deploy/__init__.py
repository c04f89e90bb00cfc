"""Running Holdfast on one machine, with servers that are installed together with it."""
