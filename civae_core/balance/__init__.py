"""Treatment assignment: propensities, training weights and overlap diagnostics (METHOD 4 and 6)."""

from civae_core.balance.propensity import CrossFit, Kind, Propensity, cross_fit, fit_propensity
from civae_core.balance.weights import WeightKind, effective_sample_size, training_weights

__all__ = [
    "CrossFit",
    "Kind",
    "Propensity",
    "WeightKind",
    "cross_fit",
    "effective_sample_size",
    "fit_propensity",
    "training_weights",
]
