"""Learning rates for the digits, compared on a fifth of the training images that is held out.

python -m convnext_jax.tools.sweep sweeps/digits_lr.py
"""

BASE = "configs/digits.py"
POINTS = [
    {"data.validation_fraction": 0.2, "optim.learning_rate": rate} for rate in (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
]
