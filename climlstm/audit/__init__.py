"""The audit of a run: leaks, implausible values, chunking, the cost of reading."""
