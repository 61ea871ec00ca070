"""Command lines beside training and evaluation: ``python -m convnext_jax.tools.X``."""
