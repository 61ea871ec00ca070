"""Evaluates checkpoints: ``python evaluate.py --workdir runs/c100``."""

from convnext_jax.tools import command_line
from convnext_jax.tools.evaluate import main

if __name__ == "__main__":
    command_line.run_main(main)
