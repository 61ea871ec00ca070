"""The training step: its gradient, its state and its compilation. Pure functions over trees of arrays."""
