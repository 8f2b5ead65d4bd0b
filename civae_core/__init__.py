"""Counterfactual images with β-Intact-VAEs: model, training, counterfactuals and their evaluation.

Importing this package is cheap: only the submodules that compute import torch.
"""

__version__ = "0.1.0"
