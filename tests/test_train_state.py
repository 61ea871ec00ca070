"""The moving average of the parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.train.state import update_ema


@pytest.mark.parametrize(("step", "decay"), [(0, 1 / 10), (9, 10 / 19), (10_000, 0.9)])
def test_the_decay_warms_up_to_its_value(step: int, decay: float):
    ema = update_ema({"x": jnp.float32([0, 10])}, {"x": jnp.float32([1, 20])}, 0.9, jnp.int32(step))
    np.testing.assert_allclose(ema["x"], [1 - decay, 20 - 10 * decay], rtol=1e-6)


def test_none_stays_none():
    assert update_ema({}, {"x": jnp.float32(1)}, 0.0, jnp.int32(3)) == {}
