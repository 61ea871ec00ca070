"""The forward pass of a network compiled for a chip that is not here, and the time that its compiler models."""

from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.models.parameters import abstract_model, merge_model
from convnext_jax.models.registry import create_model
from convnext_jax.sharding import Sharding, abstract, make_mesh
from convnext_jax.tools.plan.kinds import step_costs
from convnext_jax.tools.plan.planning import executed_by
from convnext_jax.tools.plan.topology import Topology, devices_of


def modeled_milliseconds(name: str, image_size: int, num_classes: int, batch_size: int, topology: Topology) -> float:
    """Returns the modeled time of an image in inference on one chip, in bfloat16.

    Args:
      name: of the network.
      image_size: side of the images in pixels.
      num_classes: outputs.
      batch_size: images in a call.
      topology: of TPUs, of which one is used.

    Raises:
      UserError: the compiler knows no such topology, or JAX cannot read what it makes.
    """
    assert topology.chip is not None and topology.chip.clock is not None
    sharding = Sharding(make_mesh(devices_of(topology)[:1]))
    model = abstract_model(lambda: create_model(name, num_classes=num_classes, dtype="bfloat16"))

    def forward(params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        return merge_model(model.definition, params, batch_stats)(images)

    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    arguments = abstract((model.params, model.batch_stats, images), sharding.replicated)
    with jax.set_mesh(sharding.mesh):
        compiled = jax.jit(forward).lower(*arguments).compile()
    cycles = sum(cost.cycles for cost in step_costs(*executed_by(compiled, topology)))
    return 1e3 * cycles / topology.chip.clock / batch_size
