"""Tasks: what a network is trained for and judged by. The step and the evaluation take one and know no labels."""
