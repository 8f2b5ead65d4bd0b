"""What was learned, measured: image metrics, intervals over images and the evaluation's report (METHOD 6)."""
