"""Floor 6: the compiled pure steps of training and evaluation."""
