"""Operations whose speed depends on the backend, each with its own gradient."""

from convnext_jax.ops.depthwise import depthwise_conv

__all__ = ["depthwise_conv"]
