"""Compiled programs kept from one start to the next, by JAX's persistent compilation cache.

JAX names a program by everything that it depends on (the computation, versions, flags, the processor's instruction
sets). So a folder may serve several machines, and a program from the cache computes what a fresh one does, to the last
bit.
"""

import logging
import stat
from pathlib import Path

import jax

from convnext_jax.errors import UserError
from convnext_jax.storage.files import user_cache_folder

MAX_BYTES = 2 * 2**30
MIN_SECONDS = 0.1

log = logging.getLogger(__name__)


def keep_compiled_programs() -> None:
    """Keeps programs that took a tenth of a second to compile in the folder ``compilation`` of the user's cache.

    Beyond 2 GiB those that were not used for the longest time are removed. A folder that the user gives to JAX
    (``JAX_COMPILATION_CACHE_DIR``) is used as it is. ``JAX_ENABLE_COMPILATION_CACHE=0`` keeps nothing. If the folder
    cannot be written, a warning says so, and every start compiles.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return
    try:
        folder = user_cache_folder() / "compilation"
        folder.mkdir(parents=True, exist_ok=True)
        remove_oldest(folder, MAX_BYTES)
    except (OSError, UserError) as error:  # UserError: there is no home folder
        log.warning("compiled programs cannot be kept (%s): set XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR", error)
        return
    # JAX's own limit (jax_compilation_cache_max_size) keeps a second file for each program. A process that is killed
    # between the two leaves a cache that JAX can no longer write to.
    jax.config.update("jax_compilation_cache_dir", str(folder))
    shortest = "jax_persistent_cache_min_compile_time_secs"
    jax.config.update(shortest, min(settings[shortest], MIN_SECONDS))


def remove_oldest(folder: Path, limit: int) -> None:
    """Removes the files of a folder that were not used for the longest time, until at most ``limit`` bytes are left."""
    used = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process has just removed it
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        used.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
