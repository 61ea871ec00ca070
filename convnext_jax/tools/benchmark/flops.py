"""What counts as the work of a part that is measured, for whoever states a share of a ceiling. Imports no JAX."""

from convnext_jax.config import OptimConfig


def flops_per_image(part: str, macs: int, optim: OptimConfig) -> int:
    """Floating-point operations that a part needs for one image.

    Twice the multiply-adds forward. A gradient takes twice as many again, by the inputs and by the kernels: six times
    the multiply-adds for a training step, and as many again for the second gradient of sharpness-aware minimisation.
    What remat computes again is not counted, nor is anything but the model's convolutions and matrix products.

    Args:
      part: ``forward``, ``step`` or ``pipeline``.
      macs: multiply-adds of the model for one image.
      optim: of the experiment.
    """
    gradients = 2 if optim.sam_rho else 1
    return 2 * macs if part == "forward" else 6 * macs * gradients
