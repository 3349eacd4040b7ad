"""Benchmarks of every op against the plain PyTorch path and the best peers."""
