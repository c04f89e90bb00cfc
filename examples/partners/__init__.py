"""The outside world, played by one small process: `app` serves it, `routes.toml` leads to it."""
