"""Counterfactual images with β-Intact-VAEs: model, training, counterfactuals and their evaluation.

Importing this package is light: torch comes in with the submodules that compute.
"""

__version__ = "0.1.0"
