"""Compiled programs kept from one start to the next, by JAX's persistent compilation cache.

JAX names a program by all that it depends on (the computation, versions, flags, the processor's instruction sets), so
a folder may serve several machines, and a program from the cache computes what a fresh one does, to the last bit.
"""

import logging
from pathlib import Path

import jax

from convnext_jax.data.cache import user_cache_folder
from convnext_jax.files import exclusive

MAX_BYTES = 2 * 2**30
MIN_SECONDS = 0.1

log = logging.getLogger(__name__)


def keep_compiled_programs() -> None:
    """Keeps programs that took a tenth of a second to compile in the folder ``compilation`` of the user's cache.

    Beyond 2 GiB those not used for the longest time make room. A folder that the user gives JAX
    (``JAX_COMPILATION_CACHE_DIR``) stands, with the limits that he gives it; ``JAX_ENABLE_COMPILATION_CACHE=0`` keeps
    nothing. Where the folder cannot be written a warning says so, and every start compiles.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return
    try:
        folder = user_cache_folder() / "compilation"
        with exclusive(folder / ".lockfile"):  # JAX's own
            _sweep_unfinished(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder, or a file system without locks
        log.warning("compiled programs cannot be kept (%s): set XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    shortest = "jax_persistent_cache_min_compile_time_secs"
    jax.config.update(shortest, min(settings[shortest], MIN_SECONDS))


def _sweep_unfinished(folder: Path) -> None:
    """Removes what a killed process wrote in part, which JAX would neither read nor replace.

    Beside each program JAX writes the time of its last use, in a second file and after the first is whole.
    """
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
            program.unlink()
