"""Optimizers, schedules, and what an optimizer does to which parameter."""
