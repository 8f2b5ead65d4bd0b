"""Terms that can be added to the objective, one a module, each off unless its weight in the config is above zero.

All are computed in one training pass and come as nats per image [B] (`hsic` has no unit), so that weights of images
and the scale of the gradient are those of (M4).
"""

from civae_core.penalties.training_pass import PassResult, TrainingPass, make_critics, penalty_metrics

__all__ = ["PassResult", "TrainingPass", "make_critics", "penalty_metrics"]
