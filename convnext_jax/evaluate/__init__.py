"""Exact evaluation. It knows parameters, not how they were trained."""
