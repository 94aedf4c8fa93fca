"""The tree in memory: nodes, their order, their paths, and operations upon them."""
