"""The simulated atmosphere that the demo, tests and benchmarks train on."""
