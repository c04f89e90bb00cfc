"""A complete Holdfast, whose parts a proof starts, breaks and examines."""
