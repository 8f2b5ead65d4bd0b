"""Optional terms of the objective, one per module; each is off unless its weight in the config is above zero.

All but `free_bits`, which changes the KL term itself, are computed in one training pass. They are in nats per image
[B] (`hsic` has no unit), so image weights and the scale of the gradient apply to them as to (M4).
"""

from civae_core.penalties.training_pass import PassResult, TrainingPass, make_critics, penalty_metrics

__all__ = ["PassResult", "TrainingPass", "make_critics", "penalty_metrics"]
