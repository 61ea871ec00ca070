"""Holds this project's network and its real training step, with several steps per call as in `train.py`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.comparison.case import LEARNING_RATE, WEIGHT_DECAY, product_side
from benchmarks.comparison.protocol import Job, serve
from convnext_jax.augment.pipeline import augment
from convnext_jax.batches.preprocess import Normalization
from convnext_jax.batches.resident import ResidentSource, abstract_split
from convnext_jax.batches.source import Batch
from convnext_jax.config import AugmentConfig, OptimConfig
from convnext_jax.data.dataset import Split
from convnext_jax.models.parameters import abstract_model, count_parameters, merge_model, nested
from convnext_jax.models.registry import create_model
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.run.environment import describe_environment
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tasks.classification import Classification
from convnext_jax.tools.benchmark.programs import compile_constant_steps
from convnext_jax.train.state import init_state
from convnext_jax.train.step import StepSpec


class ConvNextJax:
    """The only option is ``dtype``, that of the computation."""

    def __init__(self, job: Job) -> None:
        case = job.case
        self.dtype = job.options["dtype"]
        sharding = Sharding(make_mesh())
        model = abstract_model(
            lambda: create_model(case.model, num_classes=case.num_classes, stem=case.stem, dtype=self.dtype)
        )
        params = jax.device_put(nested(job.weights("flat")), sharding.replicated)
        pixels, labels = job.array("pixels"), job.array("labels")
        # No warmup and no label smoothing, since the other systems have neither.
        optim = OptimConfig(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, label_smoothing=0.0)
        schedule, task = optax.constant_schedule(LEARNING_RATE), Classification(case.num_classes)
        plain = AugmentConfig(crop_padding=0, flip="none")
        split = abstract_split(Split(pixels, labels), sharding)
        self.spec = StepSpec(
            definition=model.definition,
            task=task,
            optimizer=make_optimizer(optim, schedule, model),
            schedule=schedule,
            augment=functools.partial(augment, plain, task, Normalization((0.5,) * 3, (0.25,) * 3)),
            source=ResidentSource(split, seed=0, batch_size=case.batch_size, sharding=sharding),
            sharding=sharding,
        )
        self.state = jax.device_put(init_state(params, self.spec.optimizer), sharding.replicated)
        self.seed = jax.device_put(jnp.uint32(0), sharding.replicated)
        indices = np.arange(case.batch_size, dtype=np.int32)
        pixels, labels, indices = jax.device_put((pixels, labels, indices), sharding.batch)
        self.batch = Batch(pixels, labels, indices, jax.device_put(jnp.int32(0), sharding.replicated))
        self.images = jax.device_put(job.array("images"), sharding.batch)
        self._predict = jax.jit(lambda params, images: merge_model(model.definition, params)(images))
        self._steps: dict[int, jax.stages.Compiled] = {}
        self._matrix = jnp.ones((product_side(jax.default_backend()),) * 2, self.dtype)

    def describe(self) -> dict[str, Any]:
        """See `benchmarks.comparison.protocol.System`. Describes the environment too."""
        environment = describe_environment()
        return {
            "parameters": count_parameters(self.state.params),
            "versions": environment["versions"],
            "device": environment["device_kind"],
            "product_flops": 2 * self._matrix.shape[0] ** 3,
            "environment": environment,
        }

    def logits(self) -> np.ndarray:
        """See `benchmarks.comparison.protocol.System`."""
        return np.asarray(self._predict(self.state.params, self.images))

    def forward(self, count: int) -> None:
        """See `benchmarks.comparison.protocol.System`."""
        jax.block_until_ready([self._predict(self.state.params, self.images) for _ in range(count)])

    def step(self, count: int) -> float:
        """See `benchmarks.comparison.protocol.System`. All steps run in one call to the device."""
        if count not in self._steps:
            self._steps[count] = compile_constant_steps(self.spec, self.state, self.batch, self.seed, count)
        self.state, metrics = self._steps[count](self.state, self.batch, self.seed)
        jax.block_until_ready(self.state)
        return float(metrics["loss"][-1])

    def product(self, count: int) -> None:
        """See `benchmarks.comparison.protocol.System`."""
        jax.block_until_ready([self._matrix @ self._matrix for _ in range(count)])


if __name__ == "__main__":
    serve(ConvNextJax)
