"""Effects on a population: mean images under a treatment, of everyone (ATE) and of groups (CATE)."""
