"""Exact evaluation of a split; knows parameters, not how they were trained."""
