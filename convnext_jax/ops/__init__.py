"""Operations whose speed depends on the platform, each with its own gradient."""

from convnext_jax.ops.convolution import conv
from convnext_jax.ops.depthwise import depthwise_conv
from convnext_jax.ops.gelu import gelu
from convnext_jax.ops.layer_norm import layer_norm
from convnext_jax.ops.matmul import matmul

__all__ = ["conv", "depthwise_conv", "gelu", "layer_norm", "matmul"]
