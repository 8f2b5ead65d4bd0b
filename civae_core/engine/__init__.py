"""Computing a model's answers from arrays to arrays, through torch or without it. Nothing here imports torch."""
