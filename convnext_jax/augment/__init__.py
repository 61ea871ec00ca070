"""Augmentation on the device, one file a family; :mod:`convnext_jax.augment.pipeline` puts them together."""
