"""Data augmentation on the device, one family per file; `convnext_jax.augment.pipeline` combines them."""
