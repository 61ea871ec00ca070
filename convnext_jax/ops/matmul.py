"""Matrix product of a feature map and a kernel, with gradients in the order that XLA runs fast on a CPU."""

import jax


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x @ kernel`` over the last axis.

    Autodiff forms the kernel's gradient as ``(dy^T x)^T``, a product that XLA (jax 0.10) writes out transposed: on a
    CPU up to seven times slower, at many rows and few channels, than ``x^T dy``, which is what is used here.

    Args:
      x: [..., C].
      kernel: [C,D].

    Returns:
      [..., D]
    """
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _backward(inputs: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    rows, grad_rows = (array.reshape(-1, array.shape[-1]) for array in (x, grad))
    return (grad_rows @ kernel.T).reshape(x.shape), rows.T @ grad_rows


matmul.defvjp(_forward, _backward)
