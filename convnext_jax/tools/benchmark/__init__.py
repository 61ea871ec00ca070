"""How fast an experiment would train on this machine, or how large its batches may be."""
