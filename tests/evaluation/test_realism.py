"""FID against scipy's matrix root, KID against loops, streams against wholes, and extractors that are not there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import scipy.linalg
import torch

from civae_core.data import PreparedData
from civae_core.errors import DataError, UsageError
from civae_core.evaluation import realism
from civae_core.evaluation.asked import Answer, Asked, Seen
from civae_core.evaluation.realism import (
    Extractor,
    RealismTally,
    RunningMoments,
    default_inception_weights,
    extractor_for,
    frechet_distance,
    kernel_distance,
    of_yardstick,
    real_features,
    resolved_extractor,
)
from civae_core.yardstick import Yardstick

CPU = torch.device("cpu")
COLOURS = Extractor(
    "mean colours", lambda y_BCHW: torch.cat([y_BCHW.mean((2, 3)), y_BCHW.std((2, 3))], dim=1)
)


def moments(rows_NF: torch.Tensor, batch: int = 10_000) -> RunningMoments:
    found = RunningMoments()
    for part in rows_NF.split(batch):
        found.add(part)
    return found


def features(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing_FF = torch.randn(5, 5, generator=generator)
    return torch.randn(count, 5, generator=generator) @ mixing_FF + shift


def test_the_frechet_distance_agrees_with_scipy_and_streams() -> None:
    one, other = features(300, 0), features(200, 1, shift=0.5)
    mean = one.mean(0) - other.mean(0)
    covariances = [np.cov(rows.double().numpy(), rowvar=False) for rows in (one, other)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = float(mean.square().sum()) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(moments(one), moments(other)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(moments(one, batch=7), moments(other, batch=64)) == pytest.approx(
        expected, rel=1e-6
    )
    assert frechet_distance(moments(one), moments(one)) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(moments(one[:1]), moments(other))


def test_fewer_images_than_features_still_have_a_distance() -> None:
    assert 0.0 <= frechet_distance(moments(features(3, 0)), moments(features(4, 1))) < float("inf")


def test_the_kernel_distance_agrees_with_a_loop() -> None:
    one, other = features(12, 0), features(12, 1, shift=0.3)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a.double() @ b.double()) / 5 + 1) ** 3

    within = sum(
        kernel(rows[i], rows[j]) for rows in (one, other) for i in range(12) for j in range(12) if i != j
    )
    across = sum(kernel(one[i], other[j]) for i in range(12) for j in range(12))
    found = kernel_distance(one, other, seed=0)
    assert found["mean"] == pytest.approx(within / (12 * 11) - 2 * across / 144, rel=1e-9)
    assert set(found) == {"mean"}, "one subset holds them all"


def test_subsets_are_drawn_by_the_seed_and_equal_populations_are_near_0() -> None:
    one = features(800, 0)
    whole = one[torch.randperm(800, generator=torch.Generator().manual_seed(5))]
    near, far = (kernel_distance(whole[:400], rows, seed=1) for rows in (whole[400:], whole[400:] + 1.0))
    assert near == kernel_distance(whole[:400], whole[400:], seed=1)
    assert near["sd_subsets"] > 0 and abs(near["mean"]) < 0.05 * far["mean"]


def test_the_tally_compares_with_training_images_over_batches(
    faces: PreparedData, make_asked: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = real_features(faces, COLOURS, CPU)
    assert real is not None
    images = faces.images(faces.rows("test")).float() / 255
    whole, parts, odd = RealismTally(real), RealismTally(real), RealismTally(real)
    whole.add(make_asked(images), Answer(images))
    for part in images.split(7):
        parts.add(make_asked(part), Answer(part))
        odd.add(make_asked(part), Answer(1 - part))
    entry = whole.summary(0)["realism"]
    assert (entry["extractor"], entry["n"], entry["n_reference"]) == (
        "mean colours",
        30,
        len(faces.rows("train")),
    )
    assert parts.summary(0)["realism"]["fid"] == pytest.approx(entry["fid"], rel=1e-6)
    assert parts.summary(0)["realism"]["kid"] == pytest.approx(entry["kid"], rel=1e-6)
    assert 0 < entry["fid"] < 0.2 * odd.summary(0)["realism"]["fid"], "copying scores two samples' distance"
    monkeypatch.setattr(realism, "MOST_FOR_KID", 10)
    few = RealismTally(real)
    for part in images.split(7):
        few.add(make_asked(part), Answer(part))
    assert few.summary(0)["realism"]["n"] == 30
    torch.testing.assert_close(few._sample.all, COLOURS.features(images)[::4], msg="spread over all of them")


def test_extractors_that_are_not_there_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extractor_for("scorer", None, CPU) is None
    with pytest.raises(UsageError, match="neither scorer, inception nor a file"):
        extractor_for("incepton", None, CPU)
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"no weights at .*weights-inception") as caught:
        extractor_for("inception", None, CPU)
    assert caught.value.hint and "never downloads" in caught.value.hint
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(b"not weights")
    with pytest.raises(DataError, match=r"weights\.pth: not the weights"):
        extractor_for(str(damaged), None, CPU)


def test_auto_is_inception_where_its_library_and_weights_are_at_hand_and_else_the_scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking: list[str] = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(realism, "missing", lambda extra: lacking)
    assert resolved_extractor("auto") == "scorer"
    weights = default_inception_weights()
    weights.parent.mkdir()
    weights.touch()
    assert resolved_extractor("auto") == "inception"
    assert [resolved_extractor(choice) for choice in ("scorer", "none")] == ["scorer", "none"]
    lacking.append("torch-fidelity>=0.4")
    assert resolved_extractor("auto") == "scorer"


def test_a_file_of_weights_cannot_run_code(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    touched = tmp_path / "touched"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (touched,))

    torch.save({"fc.bias": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(DataError, match="not the weights"):
        extractor_for(str(tmp_path / "hostile.pth"), None, CPU)
    assert not touched.exists()


def test_inception_reads_weights_from_the_file_that_is_named(tmp_path: Path) -> None:
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        made: dict[str, torch.Tensor] = {}
        patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: made)
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        made |= library.FeatureExtractorInceptionV3("made", ["2048"]).state_dict()
    torch.save(made, tmp_path / "inception.pth")
    extractor = extractor_for(str(tmp_path / "inception.pth"), None, CPU)
    assert extractor is not None and extractor.name == "Inception v3 (inception.pth)"
    grey = extractor.features(torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert grey.shape == (2, 2048) and grey.dtype == torch.float32


def test_weights_that_change_after_they_were_checked_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights, touched = tmp_path / "inception.pth", tmp_path / "touched"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (touched,))

    torch.save({"checked": torch.arange(3)}, weights)
    load, given = torch.load, []

    def loaded_and_exchanged(file: Any, *args: Any, **options: Any) -> Any:
        found = load(file, *args, **options)
        torch.save({"checked": Hostile()}, weights)
        return found

    monkeypatch.setattr(torch, "load", loaded_and_exchanged)
    monkeypatch.setattr(
        library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: given.append(state)
    )
    assert extractor_for(str(weights), None, CPU) is not None
    assert not touched.exists()
    assert [state["checked"].tolist() for state in given] == [[0, 1, 2]]


def test_what_the_yardstick_has_read_is_not_read_again(
    faces: PreparedData, make_asked: Callable[..., Asked]
) -> None:
    class Looking:
        """A yardstick that counts how often it is used."""

        name, looks = "looking", 0

        def read(self, y_BCHW: torch.Tensor) -> Any:
            self.looks += 1
            return SimpleNamespace(features_BF=COLOURS.features(y_BCHW))

    yardstick, other = Looking(), Looking()
    real = real_features(faces, of_yardstick(cast(Yardstick, yardstick)), CPU)
    assert real is not None
    images = faces.images(faces.rows("test")).float() / 255
    seen = cast(Any, Seen)(yardstick.read(images), None, None)
    found, looks = [], yardstick.looks
    for reader, again in ((yardstick, 0), (other, 1), (None, 1)):
        tally = RealismTally(real, cast(Yardstick | None, reader))
        tally.add(make_asked(images), Answer(images), seen)
        assert yardstick.looks == looks + again
        looks = yardstick.looks
        found.append(tally.summary(0)["realism"])
    assert found[0] == found[1] == found[2]


def test_training_images_are_read_once_however_many_questions_there_are(faces: PreparedData) -> None:
    read: list[int] = []

    def features(y_BCHW: torch.Tensor) -> torch.Tensor:
        read.append(len(y_BCHW))
        return COLOURS.features(y_BCHW)

    extractor = Extractor("counting", features)
    first = real_features(faces, extractor, CPU)
    assert real_features(faces, extractor, CPU) is first and sum(read) == len(faces.rows("train"))
    assert real_features(faces, Extractor("another", features), CPU) is not first
