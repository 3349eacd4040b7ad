"""Plain PyTorch implementations of every op: the fallback and the baseline. Imports nothing of the package."""
