"""A small process that plays the outside world. `app` serves it, and `routes.toml` sends events to it."""
