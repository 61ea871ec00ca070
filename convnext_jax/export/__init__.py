"""A trained classifier in the formats of other software."""

# The formats besides those of the libraries of PyTorch, `convnext_jax.export.pytorch_models.formats_of`.
PROGRAMS = ("convnext_jax", "onnx", "onnx_int8", "stablehlo")
