"""The moving average."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convnext_jax.train.state import init_state, update_ema


@pytest.mark.parametrize(("step", "decay"), [(0, 1 / 10), (9, 10 / 19), (10_000, 0.9)])
def test_the_decay_warms_up_to_its_value(step: int, decay: float):
    ema = update_ema({"x": jnp.float32([0, 10])}, {"x": jnp.float32([1, 20])}, 0.9, jnp.int32(step))
    np.testing.assert_allclose(ema["x"], [1 - decay, 20 - 10 * decay], rtol=1e-6)


@pytest.mark.parametrize("keep_ema", [False, True])
def test_the_average_begins_as_a_copy_or_not_at_all(keep_ema: bool):
    params, batch_stats = {"x": jnp.float32([1, 2])}, {"mean": jnp.float32([3])}
    state = init_state(params, optax.sgd(0.1), batch_stats, keep_ema=keep_ema)
    assert int(state.step) == 0 and state.batch_stats is batch_stats
    if keep_ema:
        np.testing.assert_array_equal(state.ema["x"], params["x"])
        np.testing.assert_array_equal(state.ema_batch_stats["mean"], batch_stats["mean"])
        assert state.ema["x"] is not params["x"], "no array can be donated twice"
    else:
        assert state.ema == state.ema_batch_stats == {}
