"""The settings of JAX that a run does not take from the environment, and the devices that it does.

JAX reads dozens of variables. Most change how a computation is carried out, but some change its numbers, and a run
started twice must have the same: those are put back, and a line says so. docs/reliability.md lists what each does.
"""

import logging
import os

import jax

from convnext_jax.errors import UserError, first_line

# By the name of JAX's setting, which is that of the variable in lower case: what all runs have.
_ALWAYS = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}
_ROUNDING = ("jax_default_matmul_precision", "jax_disable_most_optimizations")
_CHOOSE_DEVICES = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")

log = logging.getLogger(__name__)


def start_jax(backend: str | None = None) -> None:
    """Puts back the settings that would change a run's numbers or end it, and starts the devices.

    Args:
      backend: the devices that ``--backend`` asks for; None leaves the choice to ``JAX_PLATFORMS``, or to JAX.

    Raises:
      UserError: the devices that were asked for cannot be used here.
    """
    if backend is not None:
        jax.config.update("jax_platforms", backend)
    settings = jax.config.values
    for name, value in _ALWAYS.items():
        if settings[name] not in (None, value):
            jax.config.update(name, value)
            if name.upper() in os.environ:
                log.warning("%s is not used: it would change the run's numbers, or end it", name.upper())
    for name in _ROUNDING:
        if settings[name]:
            log.warning("%s is used; the run's numbers may differ by rounding from those without it", name.upper())
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: JAX sees no NVIDIA GPU
        reason = first_line(error).partition(" (")[0].rstrip(".") if str(error) else "there is none"
        asked = [f"--backend {backend}"] if backend else []
        asked += [f"{name}={os.environ[name]}" for name in _CHOOSE_DEVICES if os.environ.get(name) and not backend]
        raise UserError(
            f"{', '.join(asked) or 'the accelerator'} cannot be used on this machine: {reason}; install what it needs,"
            " or take JAX_PLATFORMS=cpu"
        ) from error
