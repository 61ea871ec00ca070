"""The parts of `benchmarks/compare.py`: the workers, each of which holds one system, and what is made of the times."""
