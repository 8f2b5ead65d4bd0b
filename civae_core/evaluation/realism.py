"""Do counterfactuals look like photographs of the data? FID and KID, on the features of a named extractor.

Scores by different extractors, or on different numbers of images, are not comparable: both are reported with them.
Nor does 0 mean flawless (see `real_features`): a method is to be compared with `copy` and `truth` only.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from civae_core.data import PreparedData
from civae_core.data.labelled import evenly_spread
from civae_core.errors import DataError, UsageError
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.kept import KeptRows
from civae_core.extras import install, missing
from civae_core.yardstick import Yardstick, load_yardstick

MOST_REFERENCES = 10_000
"""At most this many training images provide the features to compare with."""
MOST_FOR_KID = 4_000
"""At most this many counterfactuals provide the features from which KID draws its subsets."""
SUBSETS, SUBSET_SIZE = 100, 100
BATCH = 64


@dataclass(frozen=True)
class Extractor:
    """A network whose features are compared, from images [B,C,S,S] in [0,1] to features [B,F]."""

    name: str
    features: Callable[[Tensor], Tensor]
    yardstick: Yardstick | None = None
    """The scorer that the features belong to, if any: images that it has already read are not read again."""
    known: dict[str, "RealFeatures"] = field(default_factory=dict, compare=False, repr=False)
    """Features of training images by the fingerprint of their data, so that `real_features` reads them only once."""


def resolved_extractor(choice: str) -> str:
    """Resolve `auto`: to `inception` if its library and weights are available, else to `scorer`.

    Whoever compares several evaluations should call this once and keep the answer: weights may come or go between
    them.
    """
    if choice != "auto":
        return choice
    return "scorer" if missing("inception") or not default_inception_weights().is_file() else "inception"


def extractor_for(choice: str, yardstick: Yardstick | None, device: torch.device) -> Extractor | None:
    """The chosen extractor.

    Args:
        choice: `scorer` for the yardstick's own features (None without a yardstick), `inception` for the Inception v3
            of torch-fidelity with the weights where that library keeps them, or a file: another yardstick
            (.safetensors), or Inception's weights.

    Raises:
        UsageError: a library or file is missing; nothing is ever downloaded.
        DataError: a file cannot be read as either.
    """
    if choice == "scorer":
        return None if yardstick is None else of_yardstick(yardstick)
    if choice == "inception":
        return _inception(default_inception_weights(), device)
    path = Path(choice)
    if not path.is_file():
        raise UsageError(
            f"--extractor {choice}: neither scorer, inception nor a file",
            hint="name a scorer's .safetensors file or Inception's weights",
        )
    if path.suffix == ".safetensors":
        return of_yardstick(load_yardstick(path, device))
    return _inception(path, device)


def of_yardstick(yardstick: Yardstick) -> Extractor:
    """The features from which a scorer reads attributes."""
    return Extractor(yardstick.name, lambda y_BCHW: yardstick.read(y_BCHW).features_BF, yardstick)


def default_inception_weights() -> Path:
    """Where torch-fidelity stores its weights when it downloads them, which it never does in civae."""
    return Path(torch.hub.get_dir()) / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"


def _inception(weights: Path, device: torch.device) -> Extractor:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UsageError("--extractor: Inception needs torch-fidelity", hint=install("inception")) from error
    if not weights.is_file():
        raise UsageError(
            f"--extractor inception: no weights at {weights}",
            hint="put torch-fidelity's weights-inception-2015-12-05 there, or name their file (civae never "
            "downloads); --extractor scorer needs none",
        )
    try:
        # The library unpickles whatever a file holds. So it never sees this one, only a copy of what a load
        # restricted to tensors has found in it, in a folder that nobody else can write to.
        state = torch.load(weights, map_location="cpu", weights_only=True)
        with tempfile.TemporaryDirectory() as private:
            checked = Path(private) / "inception.pth"
            torch.save(state, checked)
            network = FeatureExtractorInceptionV3(
                "inception", ["2048"], feature_extractor_weights_path=str(checked)
            )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{weights}: not the weights of torch-fidelity's Inception v3 ({reason})",
            hint="use torch-fidelity's own file, weights-inception-2015-12-05-6726825d.pth",
        ) from error
    network = network.to(device).eval().requires_grad_(False)

    def features(y_BCHW: Tensor) -> Tensor:
        bytes_BCHW = (y_BCHW.clamp(0, 1) * 255).round().to(torch.uint8)
        rgb_BCHW = bytes_BCHW.expand(-1, 3, -1, -1) if bytes_BCHW.shape[1] == 1 else bytes_BCHW
        found_BF: Tensor = network(rgb_BCHW)[0]
        return found_BF.float()

    return Extractor(f"Inception v3 ({weights.name})", features)


class RunningMoments:
    """Mean and covariance of features that come in batches, in float64; memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._sum_F: Tensor | None = None
        self._products_FF: Tensor | None = None

    def add(self, features_BF: Tensor) -> None:
        rows_BF = features_BF.detach().cpu().double()
        self.count += len(rows_BF)
        sum_F, products_FF = rows_BF.sum(0), rows_BF.T @ rows_BF
        self._sum_F = sum_F if self._sum_F is None else self._sum_F + sum_F
        self._products_FF = products_FF if self._products_FF is None else self._products_FF + products_FF

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Mean [F] and unbiased covariance [F, F].

        Raises:
            ValueError: there are fewer than two rows.
        """
        if self._sum_F is None or self._products_FF is None or self.count < 2:
            raise ValueError("a covariance needs at least two images")
        mean_F = self._sum_F / self.count
        covariance_FF = (self._products_FF - self.count * torch.outer(mean_F, mean_F)) / (self.count - 1)
        return mean_F, covariance_FF


def frechet_distance(one: RunningMoments, other: RunningMoments) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) (Heusel et al. 2017), never below 0.

    The trace of (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    """
    (mean_1_F, covariance_1_FF), (mean_2_F, covariance_2_FF) = (
        moments.mean_and_covariance() for moments in (one, other)
    )
    values_F, vectors_FF = torch.linalg.eigh(covariance_1_FF)
    root_FF = (vectors_FF * values_F.clamp(min=0).sqrt()) @ vectors_FF.T
    shared_F = torch.linalg.eigvalsh(root_FF @ covariance_2_FF @ root_FF).clamp(min=0)
    traces = covariance_1_FF.trace() + covariance_2_FF.trace() - 2 * shared_F.sqrt().sum()
    return max(float((mean_1_F - mean_2_F).square().sum() + traces), 0.0)


def kernel_distance(one_NF: Tensor, other_MF: Tensor, seed: int) -> dict[str, float]:
    """KID (Bińkowski et al. 2018): the unbiased MMD² under (x·y/F + 1)³, `mean` and `sd_subsets` of random subsets.

    If one side has no more images than a subset, it is compared only once, with as many images of the other side, and
    there is no `sd_subsets`, because one subset does not show how much subsets vary.

    Raises:
        ValueError: a side has fewer than two rows.
    """
    size = min(SUBSET_SIZE, len(one_NF), len(other_MF))
    if size < 2:
        raise ValueError("a kernel distance needs at least two images")
    subsets = SUBSETS if size < min(len(one_NF), len(other_MF)) else 1
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        parts = [rows[torch.randperm(len(rows), generator=generator)[:size]] for rows in (one_NF, other_MF)]
        values.append(_mmd(*(part.double() for part in parts)))
    value_S = torch.tensor(values, dtype=torch.float64)
    return {"mean": float(value_S.mean()), **({"sd_subsets": float(value_S.std())} if subsets > 1 else {})}


def _mmd(one_SF: Tensor, other_SF: Tensor) -> float:
    def kernel(a_SF: Tensor, b_SF: Tensor) -> Tensor:
        return (a_SF @ b_SF.T / a_SF.shape[1] + 1) ** 3

    within = sum(
        kernel(rows, rows).sum() - kernel(rows, rows).diagonal().sum() for rows in (one_SF, other_SF)
    )
    size = len(one_SF)
    return float(within / (size * (size - 1)) - 2 * kernel(one_SF, other_SF).mean())


@dataclass(frozen=True)
class RealFeatures:
    """The features of training images with which counterfactuals are compared."""

    extractor: Extractor
    moments: RunningMoments
    sample_MF: Tensor
    """The features from which KID draws its subsets."""


@torch.no_grad()
def real_features(data: PreparedData, extractor: Extractor, device: torch.device) -> RealFeatures | None:
    """Features of images spread evenly over the train split; None if it has fewer than two images.

    They show other people than those asked about, and another population. The built-in faces are confounded in the
    train split and randomised in the others; in real data, a flip swaps the shares of the treatment's values. Where
    the extractor is the scorer, its features were fitted on these very photographs. So neither a copy nor even the
    truth scores 0.

    They are read once per extractor, however many questions ask for them.
    """
    if data.fingerprint in extractor.known:
        return extractor.known[data.fingerprint]
    rows = data.rows("train")
    if len(rows) < 2:
        return None
    rows = rows[evenly_spread(len(rows), MOST_REFERENCES)]
    moments, kept = RunningMoments(), KeptRows()
    for part in rows.split(BATCH):
        features_BF = extractor.features(data.images(part).to(device).float() / 255)
        moments.add(features_BF)
        kept.add(features_BF.float())
    extractor.known[data.fingerprint] = RealFeatures(extractor, moments, kept.all)
    return extractor.known[data.fingerprint]


class RealismTally:
    """Collects the features of counterfactuals at τ = 1.

    The entry `realism` has `fid`, `kid` (`mean` and `sd_subsets`), `extractor`, and the numbers of counterfactuals,
    `n`, and of training images, `n_reference`. FID is biased upwards in small sets, the more so the smaller they are.
    """

    def __init__(self, real: RealFeatures, yardstick: Yardstick | None = None) -> None:
        """`yardstick` is the one whose readings are passed to `add`."""
        self._real = real
        self._is_read = yardstick is not None and real.extractor.yardstick is yardstick
        self._moments = RunningMoments()
        self._sample = KeptRows()
        self._stride = 1

    def add(self, asked: Asked, answer: Answer, seen: Seen | None = None) -> None:
        if self._is_read and seen is not None:
            features_BF = seen.with_noise.features_BF.detach().cpu().float()
        else:
            features_BF = (
                self._real.extractor.features(answer.with_noise_BCHW.clamp(0, 1)).detach().cpu().float()
            )
        # Every stride-th image is kept for KID; when these become too many, every other one is dropped.
        first = -self._moments.count % self._stride
        self._sample.add(features_BF[first :: self._stride])
        while len(self._sample) > MOST_FOR_KID:
            self._sample.keep_every(2)
            self._stride *= 2
        self._moments.add(features_BF)

    def per_image(self) -> dict[str, Tensor]:
        return {}

    def summary(self, seed: int) -> dict[str, Any]:
        if self._moments.count < 2:
            return {}
        fid = frechet_distance(self._moments, self._real.moments)
        entry = {
            "fid": fid,
            "kid": kernel_distance(self._sample.all, self._real.sample_MF, seed),
            "extractor": self._real.extractor.name,
            "n": self._moments.count,
            "n_reference": self._real.moments.count,
        }
        return {"realism": entry} if math.isfinite(fid) else {}
