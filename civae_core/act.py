"""The second step of a counterfactual: t ← t'. This module imports no torch."""

from collections.abc import Sequence

import numpy as np

from civae_core.assignments import Intervention
from civae_core.attributes import Attribute


def acted(t_BT: np.ndarray, intervention: Intervention, treatments: Sequence[Attribute]) -> np.ndarray:
    """t' [B, T] of each image: the named treatments are set, or flipped between 0 and 1; the others are kept."""
    t_new_BT = t_BT.copy()
    for index, attribute in enumerate(treatments):
        if attribute.name in intervention:
            value = intervention[attribute.name]
            t_new_BT[:, index] = 1 - t_BT[:, index].round() if value == "flip" else value
    return t_new_BT
