"""Attention against float64 sums written out, and its gradients against those of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.attention import dot_product_attention

# Shapes of queries and keys, of the bias and of the mask.
CASES = {
    "plain": ((2, 5, 3, 4), 5, None, None),
    "more keys": ((2, 5, 3, 4), 7, None, None),
    "one query": ((2, 1, 2, 3), 6, None, None),
    "bias for each pair": ((2, 5, 3, 4), 5, (1, 3, 5, 5), None),
    "bias for each head": ((2, 5, 3, 4), 6, (1, 3, 1, 1), None),
    "bias for each sequence": ((2, 5, 3, 4), 6, (2, 1, 5, 6), None),
    "mask": ((2, 5, 3, 4), 5, None, (2, 1, 5, 5)),
    "bias and mask": ((2, 5, 3, 4), 6, (1, 3, 5, 6), (1, 1, 5, 6)),
}


def draw(name: str) -> dict[str, jax.Array]:
    shape, keys, bias, mask = CASES[name]
    random = np.random.default_rng(0)
    batch, _, heads, channels = shape
    shapes = {"query": shape, "key": (batch, keys, heads, channels), "value": (batch, keys, heads, channels)}
    if bias is not None:
        shapes["bias"] = bias
    arrays = {each: jnp.asarray(random.standard_normal(size), jnp.float32) for each, size in shapes.items()}
    if mask is not None:
        allowed = random.random(mask) < 0.5
        allowed[..., 0] = True
        arrays["mask"] = jnp.asarray(allowed)
    return arrays


def reference(arrays: dict[str, jax.Array], scale: float | None) -> np.ndarray:
    query, key, value = (np.asarray(arrays[name], np.float64) for name in ("query", "key", "value"))
    y = np.zeros(query.shape)
    batch, queries, heads, channels = query.shape
    scores_of_all = np.zeros((batch, heads, queries, key.shape[1]))
    scores_of_all += np.asarray(arrays.get("bias", 0.0), np.float64)
    allowed = np.broadcast_to(np.asarray(arrays.get("mask", True)), scores_of_all.shape)
    for b in range(batch):
        for n in range(queries):
            for head in range(heads):
                scores = scores_of_all[b, head, n] + key[b, :, head] @ query[b, n, head] * (scale or channels**-0.5)
                weights = np.where(allowed[b, head, n], np.exp(scores - scores.max()), 0.0)
                y[b, n, head] = weights @ value[b, :, head] / weights.sum()
    return y


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_values(name: str, scale: float | None) -> None:
    arrays = draw(name)
    found = jax.jit(lambda arrays: dot_product_attention(**arrays, scale=scale))(arrays)
    np.testing.assert_allclose(found, reference(arrays, scale), rtol=1e-5, atol=1e-6)


def plain(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None, mask: jax.Array | None = None
):
    return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_jax(name: str) -> None:
    arrays = draw(name)
    masks = {each: arrays.pop(each) for each in ("mask",) if each in arrays}
    weights = jnp.cos(jnp.arange(arrays["query"].size, dtype=jnp.float32)).reshape(arrays["query"].shape)

    def gradients(attend, arrays):
        return jax.grad(lambda arrays: (weights * attend(**arrays, **masks)).sum())(arrays)

    found, expected = (jax.jit(gradients, static_argnums=0)(each, arrays) for each in (dot_product_attention, plain))
    assert found.keys() == arrays.keys()
    for each in arrays:
        np.testing.assert_allclose(found[each], expected[each], rtol=1e-4, atol=1e-5, err_msg=each)


def test_second_derivatives_are_those_of_jax() -> None:
    arrays = {name: array[:1, :3] for name, array in draw("plain").items()}

    def hessian(attend):
        return jax.jit(jax.jacrev(jax.grad(lambda arrays: (attend(**arrays) ** 2).sum())))(arrays)

    for ours, theirs in zip(*map(jax.tree.leaves, (hessian(dot_product_attention), hessian(plain))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_query_that_sees_no_key_is_as_jax_has_it() -> None:
    arrays = draw("mask")
    mask = jnp.ones((2, 1, 5, 5), bool).at[:, :, 0].set(False)

    def gradients(attend):
        return jax.jit(jax.grad(lambda arrays: (attend(**arrays, mask=mask) ** 2).sum()))(arrays)

    arrays.pop("mask")
    found, expected = gradients(dot_product_attention), gradients(plain)
    np.testing.assert_array_equal(found["query"][:, 0], 0.0)
    for each in arrays:
        np.testing.assert_allclose(found[each], expected[each], rtol=1e-4, atol=1e-5, err_msg=each)
    uniform = arrays["value"].mean(1)
    np.testing.assert_allclose(dot_product_attention(**arrays, mask=mask)[:, 0], uniform, rtol=1e-5, atol=1e-6)


def test_large_scores_stay_finite() -> None:
    arrays = draw("plain")
    arrays |= {"query": 1e4 * arrays["query"]}
    value, grads = jax.jit(jax.value_and_grad(lambda arrays: dot_product_attention(**arrays).sum()))(arrays)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))


def test_what_the_gradient_keeps_is_the_inputs_and_the_weights() -> None:
    x = jax.ShapeDtypeStruct((1, 64, 3, 64), jnp.float32)
    kept = jax.eval_shape(lambda *inputs: jax.vjp(dot_product_attention, *inputs)[1], x, x, x)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(kept))
    assert numbers == 3 * 64 * 3 * 64 + 3 * 64 * 64 + 3 * 64


def test_bfloat16_is_rounded_once() -> None:
    arrays = {name: array.astype(jnp.bfloat16) for name, array in draw("plain").items()}
    found = dot_product_attention(**arrays)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), reference(arrays, None), rtol=2.0**-8, atol=1e-5)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_have_a_program_for_it(platform: str) -> None:
    def step(arrays):
        return jax.grad(lambda query: dot_product_attention(**arrays | {"query": query}).sum())(arrays["query"])

    lowered = jax.jit(step).trace(draw("bias and mask")).lower(lowering_platforms=(platform,))
    assert lowered.out_info.shape == (2, 5, 3, 4)
