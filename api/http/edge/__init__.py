"""The edge: what every request passes before the framework has it."""
