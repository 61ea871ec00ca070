"""Scaled dot-product attention, with a gradient of its own, fast on a CPU.

On a CPU `jax.nn.dot_product_attention` takes up to four times as long (jax 0.10, timed by hand, benchmarks/notes.md):
it multiplies heads that do not lie next to each other, and divides each score by the sum of its row. Here the heads are
transposed first, and on a CPU the mixed values are divided. Other platforms divide the scores, and multiply in the
dtype of the inputs, as JAX does.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import cpu_call


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
    return _attend(query.shape[-1] ** -0.5 if scale is None else scale, query, key, value, bias, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(scale: float, query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any) -> jax.Array:
    return _run(scale, query, key, value, bias, mask)[0]


def _forward(
    scale: float, query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any
) -> tuple[jax.Array, tuple[Any, ...]]:
    mixed, weights, total = _run(scale, query, key, value, bias, mask)
    return mixed, (query, key, value, bias, mask, weights, total)


def _backward(scale: float, saved: tuple[Any, ...], grad: jax.Array) -> tuple[Any, ...]:
    return *_run_gradients(scale, *saved, grad), None


_attend.defvjp(_forward, _backward)


# Jitted, so that the trace of one layer is reused for the layers of the same shape.


@functools.partial(jax.jit, static_argnums=0)
def _run(
    scale: float, query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the mixed values, and the weights [B,heads,N,M] with their totals [B,heads,N,1], float32 or better."""
    on_cpu, elsewhere = (functools.partial(_mix, scale, is_cpu) for is_cpu in (True, False))
    return jax.lax.platform_dependent(query, key, value, bias, mask, cpu=cpu_call(on_cpu), default=elsewhere)


@functools.partial(jax.jit, static_argnums=0)
def _run_gradients(scale: float, *arrays: Any) -> tuple[Any, ...]:
    """Returns the gradients by the query, the key, the value and the bias."""
    on_cpu, elsewhere = (functools.partial(_gradients, scale, is_cpu) for is_cpu in (True, False))
    return jax.lax.platform_dependent(*arrays, cpu=cpu_call(on_cpu), default=elsewhere)


def _mix(
    scale: float, is_cpu: bool, query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    wide, factor = _dtypes(is_cpu, query.dtype)
    queries, keys, values = (_heads_first(x.astype(factor)) for x in (query, key, value))
    scores = scale * jnp.einsum("bhqd,bhkd->bhqk", queries, keys, preferred_element_type=wide)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, -0.7 * jnp.finfo(wide).max)  # finite, as JAX's
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    if not is_cpu:
        weights, total = weights / total, jnp.ones_like(total)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(factor), values, preferred_element_type=wide) / total
    return _heads_first(mixed).astype(query.dtype), weights, total


def _gradients(
    scale: float,
    is_cpu: bool,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: Any,
    mask: Any,
    weights: jax.Array,
    total: jax.Array,
    grad: jax.Array,
) -> tuple[Any, ...]:
    wide, factor = _dtypes(is_cpu, query.dtype)
    product = functools.partial(jnp.einsum, preferred_element_type=wide)
    queries, keys, values, grads = (_heads_first(x.astype(factor)) for x in (query, key, value, grad))
    shares = weights / total
    by_value = product("bhqk,bhqd->bhkd", shares.astype(factor), grads)
    by_shares = product("bhqd,bhkd->bhqk", grads, values)
    by_scores = shares * (by_shares - (shares * by_shares).sum(-1, keepdims=True))
    if mask is not None:  # a query that sees no key has equal shares of all, and no influence on them
        by_scores = jnp.where(mask, by_scores, 0.0)
    scaled = (scale * by_scores).astype(factor)
    by_query, by_key = product("bhqk,bhkd->bhqd", scaled, keys), product("bhqk,bhqd->bhkd", scaled, queries)
    found = [_heads_first(x).astype(query.dtype) for x in (by_query, by_key, by_value)]
    if bias is None:
        return *found, None
    axes = [axis for axis, size in enumerate(bias.shape) if size < by_scores.shape[axis]]
    return *found, by_scores.sum(axes, keepdims=True).astype(bias.dtype)


def _dtypes(is_cpu: bool, dtype: Any) -> tuple[Any, Any]:
    """Returns the dtype of sums, and that of what is multiplied: a CPU computes bfloat16 by way of float32 anyway."""
    wide = jnp.promote_types(dtype, jnp.float32)
    return wide, wide if is_cpu else dtype


def _heads_first(x: jax.Array) -> jax.Array:
    """[B,N,heads,D] -> [B,heads,N,D], and the other way round."""
    return jnp.swapaxes(x, 1, 2)
