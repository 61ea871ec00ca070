"""Batches: their order, where they come from, and how pixels become the input of a network."""
