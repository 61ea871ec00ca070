"""Data sets as uint8 arrays: preparing, caching and loading them without TensorFlow and without JAX."""

from convnext_jax.data.dataset import Dataset, Split
from convnext_jax.data.load import load
from convnext_jax.data.registry import check_name, dataset_names

__all__ = ["Dataset", "Split", "check_name", "dataset_names", "load"]
