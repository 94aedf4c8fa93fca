"""What `kerai agent work` does: run a solver and the tests on a state, and push what got better."""
