"""The parts of `benchmarks/compare.py`: workers that each hold one system, and the evaluation of their times."""
