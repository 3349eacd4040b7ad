"""Naive float64 implementations of every op, one file an op: slow, short and evidently right."""
