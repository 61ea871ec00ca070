"""The training step: losses, metrics, state and the step itself, pure functions all."""
