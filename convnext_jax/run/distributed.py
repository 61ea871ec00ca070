"""Joins the processes of a run to one: from flags, on a TPU slice, or under Slurm."""

import importlib.metadata
import os
import socket

import jax
import numpy as np
from jax.experimental import multihost_utils

from convnext_jax.run.peers import ALONE, Peers, gather_at_lead, join_lead, listen
from convnext_jax.run.process_flags import ProcessFlags

_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")  # as srun sets them
_LONGEST_NAME = 256


def join_processes(flags: ProcessFlags) -> Peers:
    """Joins this process with the others of the run, before JAX starts its devices.

    Raises:
      UserError: process 0 cannot be reached, or one of the others did not come.
    """
    # It would take SIGTERM for itself. This project's own handler saves and stops, in all processes at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    if flags.coordinator is not None:
        return _join_by_flags(flags)
    if _on_tpu() or _under_slurm():
        jax.distributed.initialize(initialization_timeout=int(flags.timeout))
        if jax.process_count() > 1:
            return _join_by_jax(flags.timeout)
    return ALONE


def _on_tpu() -> bool:
    # JAX says so when it is imported on a machine with TPU chips. It asks the metadata for the other hosts.
    allowed = jax.config.values["jax_platforms"]
    return os.environ.get("TPU_ML_PLATFORM") == "JAX" and (not allowed or "tpu" in allowed)


def _under_slurm() -> bool:
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and all(name in os.environ for name in _SLURM)


def _join_by_flags(flags: ProcessFlags) -> Peers:
    count, index = flags.num_processes, flags.process_id
    assert count is not None and index is not None
    if count == 1:
        return ALONE
    if index == 0:
        listening = listen(flags.port)
        listen(flags.port + 1).close()  # JAX would end the process without a word that helps
        peers = gather_at_lead(listening, count, _versions(), flags.timeout)
    else:
        peers = join_lead([flags.host], flags.port, index, count, _versions(), flags.timeout)
    host = f"[{flags.host}]" if ":" in flags.host else flags.host  # an address of IPv6
    jax.distributed.initialize(f"{host}:{flags.port + 1}", count, index, initialization_timeout=120)
    return peers


def _join_by_jax(timeout: float) -> Peers:
    """The same, once JAX itself has found all processes."""
    index, count = jax.process_index(), jax.process_count()
    listening = listen(0) if index == 0 else None
    port = listening.getsockname()[1] if listening else 0
    name = np.frombuffer(socket.getfqdn().encode()[:_LONGEST_NAME].ljust(_LONGEST_NAME), np.uint8)
    port, name = multihost_utils.broadcast_one_to_all((np.int32(port), name))
    if listening:
        return gather_at_lead(listening, count, _versions(), timeout)
    host = bytes(np.asarray(name)).decode().strip()
    return join_lead([host, host.partition(".")[0]], int(port), index, count, _versions(), timeout)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")}
