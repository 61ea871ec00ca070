"""What a mesh refuses, and what is computed in."""

import pytest

from convnext_jax import sharding as distributed
from convnext_jax.errors import UserError


def test_a_batch_that_does_not_split_is_refused_with_two_that_do():
    mesh = distributed.make_mesh()
    distributed.check_batch_size("config.run.batch_size", 64, mesh)
    with pytest.raises(UserError, match=r"config\.run\.batch_size=12 is not a multiple of the 8 devices; take 8 or 16"):
        distributed.check_batch_size("config.run.batch_size", 12, mesh)
    with pytest.raises(UserError, match="batch_size=5 .*take 8$"):
        distributed.check_batch_size("batch_size", 5, mesh)


def test_auto_is_float32_on_a_cpu():
    assert distributed.compute_dtype("auto") == "float32"
    assert distributed.compute_dtype("bfloat16") == "bfloat16"
