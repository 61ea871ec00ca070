"""Holds the plain JAX network. Each step is a call of its own under `jax.jit`, with optax's AdamW."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.comparison.case import LEARNING_RATE, WEIGHT_DECAY, product_side
from benchmarks.comparison.plain_jax_model import predict
from benchmarks.comparison.protocol import Job, serve


class PlainJax:
    """The only option is ``dtype``, that of the computation."""

    def __init__(self, job: Job) -> None:
        dtype = jnp.dtype(job.options["dtype"])
        self.params = {path: jnp.asarray(array) for path, array in job.weights("flat").items()}
        self.images, self.labels = jnp.asarray(job.array("images")), jnp.asarray(job.array("labels"))
        optimizer = make_optimizer()
        self.opt_state = optimizer.init(self.params)
        depths, window = job.case.depths, job.case.window

        def logits(params: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
            return logits_in(dtype, params, images, depths, window)

        train_step = jax.jit(make_train_step(optimizer, dtype, depths, window), donate_argnums=(0, 1))
        self._predict, self._train_step = jax.jit(logits), train_step
        self._matrix = jnp.ones((product_side(jax.default_backend()),) * 2, dtype)

    def describe(self) -> dict[str, Any]:
        """See `benchmarks.comparison.protocol.System`."""
        return {
            "parameters": sum(leaf.size for leaf in self.params.values()),
            "versions": {"jax": jax.__version__, "optax": optax.__version__},
            "device": jax.devices()[0].device_kind,
            "product_flops": 2 * self._matrix.shape[0] ** 3,
        }

    def logits(self) -> np.ndarray:
        """See `benchmarks.comparison.protocol.System`."""
        return np.asarray(self._predict(self.params, self.images))

    def forward(self, count: int) -> None:
        """See `benchmarks.comparison.protocol.System`."""
        jax.block_until_ready([self._predict(self.params, self.images) for _ in range(count)])

    def step(self, count: int) -> float:
        """See `benchmarks.comparison.protocol.System`."""
        loss = jnp.nan
        for _ in range(count):
            self.params, self.opt_state, loss = self._train_step(self.params, self.opt_state, self.images, self.labels)
        jax.block_until_ready(self.params)
        return float(loss)

    def product(self, count: int) -> None:
        """See `benchmarks.comparison.protocol.System`."""
        jax.block_until_ready([self._matrix @ self._matrix for _ in range(count)])


def make_optimizer() -> optax.GradientTransformation:
    """optax's AdamW, without decay of what is no kernel."""
    return optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=is_kernel)


def logits_in(
    dtype: Any, params: Mapping[str, jax.Array], images: jax.Array, depths: tuple[int, ...], window: tuple[int, ...]
) -> jax.Array:
    """The logits, float32 [B,K], computed in a dtype; see `benchmarks.comparison.plain_jax_model.predict`."""
    params = {path: leaf.astype(dtype) for path, leaf in params.items()}
    return predict(params, images.astype(dtype), depths, window)


def make_train_step(
    optimizer: optax.GradientTransformation, dtype: Any, depths: tuple[int, ...], window: tuple[int, ...]
) -> Callable[..., tuple[Any, Any, jax.Array]]:
    """Returns ``step(params, opt_state, images, labels) -> (params, opt_state, loss)``, not yet compiled."""

    def mean_loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = logits_in(dtype, params, images, depths, window)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def train_step(params: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, grads = jax.value_and_grad(mean_loss)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step


def is_kernel(params: Any) -> Any:
    """Returns the tree of the parameters, with True where weight decay applies."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


if __name__ == "__main__":
    serve(PlainJax)
