"""What a training would need on chips that are not here: memory, time and chip hours, before anyone rents them."""
