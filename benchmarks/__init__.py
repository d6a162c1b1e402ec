"""Speed of stn_cuda against what a user would pick instead: ``python -m benchmarks``."""
