"""From two states to few operations: what is which, and what must be done."""
