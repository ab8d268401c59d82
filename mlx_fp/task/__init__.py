"""Floor 5: what a model is trained for, and how that is measured."""
