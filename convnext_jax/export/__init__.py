"""A trained classifier in the formats of other software."""
