"""What PyTorch calls the arrays of a layer."""

# By our names; a kernel and the scale of a norm are both "weight".
TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def torch_array_name(place: str, leaf: str) -> str:
    """Returns the name of an array in a state dict.

    >>> torch_array_name("layer1/0/bn1", "mean")
    'layer1.0.bn1.running_mean'

    Args:
      place: PyTorch's names of the modules around it, with slashes.
      leaf: our name of the array, one of `TORCH_LEAVES`.
    """
    return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"
