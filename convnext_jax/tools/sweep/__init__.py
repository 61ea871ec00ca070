"""Settings trained one after another and ranked by their figures on a validation split."""
