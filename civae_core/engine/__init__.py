"""Compute a model's answers, from arrays to arrays, with or without torch. Nothing here imports torch."""
