"""Evaluation of what was learned: image metrics, intervals over images, and the report (METHOD 6)."""
