"""Several processes that train one model: who takes part, and the messages between them."""
