"""Who wins, by how much, and whether it can be chance."""
