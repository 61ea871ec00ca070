"""Schedules, parameter groups and the optimiser, as optax transformations."""
