"""Windows: which there are, in which order, and their stream."""
