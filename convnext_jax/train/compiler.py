"""The compiled steps of a training, made in a thread while its state is made ready and while it already trains."""

import dataclasses
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

import jax

from convnext_jax.train.state import TrainState
from convnext_jax.train.step import StepSpec, lower_train_steps


class StepCompiler:
    """Compiles the training step for each size of the images, one after another in a thread of its own.

    XLA compiles without Python's lock. So the state is drawn or restored meanwhile, and if the images grow during the
    run, the first steps are taken while the programs for the later sizes are compiled. The seeds of an experiment share
    one compiler: they differ in the arguments alone.

    It is a context. What has not been begun when it ends stays uncompiled.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compilation")
        self._programs: dict[int | None, Future[jax.stages.Compiled]] = {}

    def begin(self, sizes: Iterable[int | None], spec: StepSpec, state: TrainState) -> None:
        """Begins to compile for sizes of the images, in this order, and returns. Sizes asked for before are skipped.

        Args:
          sizes: sides in pixels that the images are scaled to; None is their own.
          spec: what the steps are compiled for, except for the size.
          state: the shapes and shardings of the state.
        """

        def lower(size: int | None) -> jax.stages.Lowered:
            return lower_train_steps(dataclasses.replace(spec, image_size=size), state)

        for size in sizes:
            if size in self._programs:
                continue
            if not self._programs:
                # Tracing is Python. In the thread it would only take turns with what the caller does next.
                self._programs[size] = self._thread.submit(lower(size).compile)
            else:
                self._programs[size] = self._thread.submit(lambda size=size: lower(size).compile())

    def is_ready(self, size: int | None, seconds: float) -> bool:
        """Returns whether a size is compiled, or has failed. Waits for at most a number of seconds."""
        return bool(wait([self._programs[size]], timeout=seconds).done)

    def wait_for(self, size: int | None) -> jax.stages.Compiled:
        """Returns the program for a size that was asked for; raises what went wrong with its compilation."""
        return self._programs[size].result()

    def check(self) -> None:
        """Raises what went wrong with any compilation so far."""
        for program in self._programs.values():
            if program.done():
                program.result()

    def __enter__(self) -> "StepCompiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Python waits for the one that is being compiled, but not before it has said why it stops.
        self._thread.shutdown(wait=False, cancel_futures=True)
