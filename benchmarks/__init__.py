"""Benchmarks: each hot path against a peer, in the same run."""
