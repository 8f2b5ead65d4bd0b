"""How far an intervention moves the scorer's view of some attributes, image by image.

All shifts are those of *raising* the first treatment that changes (`Asked.direction_B`); otherwise flips in opposite
directions would cancel out. Both images of a shift have the same noise level: at τ = 1 the counterfactual is compared
with the input, which is what a null intervention returns there; at τ = 0 the mean image is compared with the
reconstruction. A blurred image is never compared with a sharp one.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor

from civae_core.attributes import Attribute
from civae_core.evaluation.asked import Asked, Seen
from civae_core.evaluation.bootstrap import bootstrap_mean
from civae_core.evaluation.kept import KeptRows
from civae_core.yardstick import Yardstick


def learned(attributes: Iterable[Attribute], yardstick: Yardstick) -> list[Attribute]:
    """Those of the attributes that the scorer knows, and as the same kind: a logit is no standardised value."""
    kinds = {attribute.name: attribute.kind for attribute in yardstick.attributes}
    return [attribute for attribute in attributes if kinds.get(attribute.name) == attribute.kind]


class Shifts:
    """The scorer's outputs for some attributes and how they shift: logits, or standard deviations if continuous.

    Kept for each image and attribute, by name:

    - `before` and `after`: the outputs for y and y' (τ = 1); `truth`: those for y*, where it is known;
    - `shift`: ±(after − before), + where the treatment is raised; `true_shift`: ±(truth − before);
    - `mean_shift`: the shift at τ = 0, where a method has these images.
    """

    def __init__(self, yardstick: Yardstick, attributes: Sequence[Attribute]) -> None:
        self.attributes = tuple(attributes)
        self.know_truth = True
        """Whether the truth of every image is known."""
        self._columns = [yardstick.index(attribute.name) for attribute in attributes]
        self._kept: dict[str, KeptRows] = {}

    def add(self, asked: Asked, seen: Seen | None) -> None:
        """
        Raises:
            ValueError: there is no reading by a scorer.
        """
        if seen is None or asked.seen is None:
            raise ValueError("a shift needs a scorer")
        before_BA = asked.seen.outputs_BA[:, self._columns]
        after_BA = seen.with_noise.outputs_BA[:, self._columns]
        sign_B1 = asked.direction_B.to(before_BA)[:, None]
        kept = {
            "sign": sign_B1,
            "before": before_BA,
            "after": after_BA,
            "shift": sign_B1 * (after_BA - before_BA),
        }
        if asked.seen_truth is not None:
            truth_BA = asked.seen_truth.outputs_BA[:, self._columns]
            kept |= {"truth": truth_BA, "true_shift": sign_B1 * (truth_BA - before_BA)}
        else:
            self.know_truth = False
        if seen.mean is not None and seen.reconstruction is not None:
            moved_BA = seen.mean.outputs_BA - seen.reconstruction.outputs_BA
            kept["mean_shift"] = sign_B1 * moved_BA[:, self._columns]
        for name, values_BA in kept.items():
            self._kept.setdefault(name, KeptRows()).add(values_BA)

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def __getitem__(self, name: str) -> Tensor:
        """Values [N, A] of all images so far, float64."""
        return self._kept[name].all.double()

    @property
    def changed_N(self) -> Tensor:
        """Bool [N]: images in which a treatment changes."""
        return self["sign"][:, 0] != 0

    def means(self, values_MA: Tensor, seed: int) -> dict[str, dict[str, float]]:
        """The mean of each attribute's values, with its interval over images."""
        return {
            attribute.name: bootstrap_mean(values_MA[:, column], seed=seed).to_dict()
            for column, attribute in enumerate(self.attributes)
        }
