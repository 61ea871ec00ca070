"""Trains a model: ``python train.py --config configs/digits.py``."""

from convnext_jax.run.signals import end_this_process_at_once
from convnext_jax.run.standard_streams import open_closed_streams

if __name__ == "__main__":
    open_closed_streams()
    end_this_process_at_once()  # if a signal comes; before the imports below take their time

from convnext_jax.tools import command_line
from convnext_jax.tools.train import main

if __name__ == "__main__":
    command_line.run_main(main)
