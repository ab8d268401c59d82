"""Floor 2: trees of arrays. Select leaves, partition and merge trees, flatten trees for compiled functions."""
