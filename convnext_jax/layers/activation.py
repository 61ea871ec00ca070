"""Activations by name."""

from collections.abc import Callable

import jax

from convnext_jax.ops.gelu import gelu

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
