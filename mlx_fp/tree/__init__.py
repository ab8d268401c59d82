"""Floor 2: trees of arrays: choose leaves, divide and merge trees, flatten them for compiled functions."""
