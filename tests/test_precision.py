"""Number formats by name."""

import pytest

from convnext_jax.precision import Precision, precision_of


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dtype_is_that_of_the_products_and_of_the_residual(dtype: str) -> None:
    assert precision_of(dtype) == Precision(compute=dtype, residual=dtype)


def test_auto_is_float32_on_a_cpu() -> None:
    assert precision_of("auto") == Precision("float32", "float32")
