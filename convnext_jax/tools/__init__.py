"""Command lines: ``python -m convnext_jax.tools.NAME --help``."""
