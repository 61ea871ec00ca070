"""The folder of a run: what it belongs to, its checkpoints and its log. Evaluation needs no more of a run than this."""
