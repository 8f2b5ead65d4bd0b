"""Effects on a population: mean images under a treatment, for everyone (ATE) and for groups (CATE)."""
