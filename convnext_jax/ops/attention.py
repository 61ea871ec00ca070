"""Scaled dot-product attention, fast on a CPU. Other platforms get JAX's.

On a CPU JAX's takes two to four times as long (jax 0.10, benchmarks/notes.md): it multiplies heads that do not lie next
to each other, and divides each score by the sum of its row. Here the heads are transposed first, and the mixed values
are divided.
"""

from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import cpu_call

_Saved = tuple[Any, ...]


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Returns the mean of the values, weighted by the softmax of ``scale query . key + bias``.

    >>> one = jnp.ones((1, 3, 2, 4))
    >>> dot_product_attention(one, one, one).shape
    (1, 3, 2, 4)

    Args:
      query: [B,N,heads,D], float32 or bfloat16.
      key: [B,M,heads,D].
      value: [B,M,heads,D].
      bias: added to the scores, [B or 1,heads or 1,N,M].
      mask: which query may see which key, bool [B or 1,heads or 1,N,M]; None lets each see all.
      scale: None is ``1 / sqrt(D)``.

    Returns:
      [B,N,heads,D] in the dtype of the query.

    Reference:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017, section 3.2.1.
    """

    def on_cpu(query: jax.Array, key: jax.Array, value: jax.Array, *others: jax.Array | None) -> jax.Array:
        wide = jnp.promote_types(query.dtype, jnp.float32)  # a CPU computes bfloat16 by way of float32 anyway
        bias, mask = others
        bias = None if bias is None else bias.astype(wide)
        scaled = query.astype(wide) * (query.shape[-1] ** -0.5 if scale is None else scale)
        return _attend(scaled, key.astype(wide), value.astype(wide), bias, mask).astype(query.dtype)

    def elsewhere(query: jax.Array, key: jax.Array, value: jax.Array, *others: jax.Array | None) -> jax.Array:
        return jax.nn.dot_product_attention(query, key, value, *others, scale=scale)

    return jax.lax.platform_dependent(query, key, value, bias, mask, cpu=on_cpu, default=elsewhere)


@jax.custom_vjp
def _attend(query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any) -> jax.Array:
    return _forward(query, key, value, bias, mask)[0]


@cpu_call
def _forward(query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any) -> tuple[jax.Array, _Saved]:
    query, key, value = map(_heads_first, (query, key, value))
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, -0.7 * jnp.finfo(scores.dtype).max)  # finite, as JAX's
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value) / total
    return _heads_first(mixed), (query, key, value, bias, mask, weights, total, mixed)


@cpu_call
def _backward(saved: _Saved, grad: jax.Array) -> tuple[Any, ...]:
    query, key, value, bias, mask, weights, total, mixed = saved
    grad = _heads_first(grad)
    shares = weights / total
    by_value = jnp.einsum("bhqk,bhqd->bhkd", shares, grad)
    by_shares = jnp.einsum("bhqd,bhkd->bhqk", grad, value)
    by_scores = shares * (by_shares - (grad * mixed).sum(-1, keepdims=True))
    by_query = jnp.einsum("bhqk,bhkd->bhqd", by_scores, key)
    by_key = jnp.einsum("bhqk,bhqd->bhkd", by_scores, query)
    by_bias = None
    if bias is not None:
        axes = [axis for axis, size in enumerate(bias.shape) if size < by_scores.shape[axis]]
        by_bias = by_scores.sum(axes, keepdims=True)
    return *map(_heads_first, (by_query, by_key, by_value)), by_bias, None


_attend.defvjp(_forward, _backward)


def _heads_first(x: jax.Array) -> jax.Array:
    """[B,N,heads,D] -> [B,heads,N,D], and the other way round."""
    return jnp.swapaxes(x, 1, 2)
