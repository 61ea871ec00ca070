"""ConvNeXt in plain JAX, without tuning: functions of a dictionary, grouped `lax.conv`, gradients by autodiff.

Liu et al. 2022, "A ConvNet for the 2020s", arXiv 2201.03545. It shares no code with `convnext_jax`, only the names
of the parameters.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Params = Mapping[str, jax.Array]


def predict(params: Params, images: jax.Array, depths: tuple[int, ...], window: tuple[int, ...]) -> jax.Array:
    """Returns the logits, float32 [B,K].

    Args:
      params: the parameters by their paths, in the dtype of the computation.
      images: [B,H,W,3], in the same dtype.
      depths: number of blocks in each stage.
      window: side, stride and padding of the stem's convolution, in pixels.
    """
    _, stride, padding = window
    x = layer_norm(conv(images, params, "stem/conv", stride, padding), params, "stem/norm")
    for stage, depth in enumerate(depths):
        path = f"stages/{stage}"
        if stage:
            x = layer_norm(x, params, f"{path}/downsample/norm")
            x = conv(x, params, f"{path}/downsample/conv", 2, 0)  # [B,H/2,W/2,C']
        for index in range(depth):
            x = block(x, params, f"{path}/blocks/{index}")
    x = layer_norm(x.mean((1, 2)), params, "norm")  # [B,C]
    return linear(x, params, "head").astype(jnp.float32)


def block(x: jax.Array, params: Params, path: str) -> jax.Array:
    """[B,H,W,C] -> [B,H,W,C]."""
    side, channels = params[f"{path}/depthwise/kernel"].shape[0], x.shape[-1]
    branch = conv(x, params, f"{path}/depthwise", 1, side // 2, groups=channels)
    branch = layer_norm(branch, params, f"{path}/norm")
    branch = jax.nn.gelu(linear(branch, params, f"{path}/expand"), approximate=False)  # [B,H,W,4C]
    return x + params[f"{path}/layer_scale"] * linear(branch, params, f"{path}/project")


def conv(x: jax.Array, params: Params, path: str, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """[B,H,W,C] -> [B,H',W',C'], zeros around the map."""
    y = jax.lax.conv_general_dilated(
        x,
        params[f"{path}/kernel"],
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + params[f"{path}/bias"]


def linear(x: jax.Array, params: Params, path: str) -> jax.Array:
    """[..., C] -> [..., C']."""
    return x @ params[f"{path}/kernel"] + params[f"{path}/bias"]


def layer_norm(x: jax.Array, params: Params, path: str) -> jax.Array:
    """[..., C] -> [..., C], statistics in float32."""
    x32 = x.astype(jnp.float32)
    mean, variance = x32.mean(-1, keepdims=True), x32.var(-1, keepdims=True)
    normal = ((x32 - mean) * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)
    return normal * params[f"{path}/scale"] + params[f"{path}/bias"]
