"""Keep a stockroom: what is in it, what it costs, how it is labelled, when it arrives."""
