"""Using a trained model: pictures in, labels filled in, counterfactuals and samples out."""
