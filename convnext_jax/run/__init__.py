"""The lifecycle of a run: prepared with all checks in order, trained, stopped and taken up again."""
