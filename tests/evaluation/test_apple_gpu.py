"""Evaluation where there is no float64: nothing asks the device for it, and the scores are those of the CPU."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from pretended import MPS, PretendedAppleGPU

from civae_core.attributes import AttributeRoles
from civae_core.data import PreparedData
from civae_core.evaluation.evaluate import Evaluation, evaluate
from civae_core.evaluation.instruments import Instruments
from civae_core.evaluation.realism import of_yardstick
from civae_core.model.stored import StoredModel
from civae_core.yardstick import Yardstick, train_yardstick

MakeStored = Callable[..., StoredModel]


@pytest.fixture
def apple_gpu() -> Iterator[None]:
    with PretendedAppleGPU():
        yield


@pytest.mark.usefixtures("apple_gpu")
def test_the_pretended_device_computes_and_refuses_float64_and_tensors_of_the_cpu() -> None:
    values_N = torch.arange(3.0).to(MPS)
    assert values_N.device == MPS and values_N.cpu().device.type == "cpu"
    assert (2 * values_N[[0, 2]] + 1).tolist() == [1.0, 5.0]
    assert values_N.cpu().double().dtype == torch.float64
    for to_float64 in (
        lambda: values_N.double(),
        lambda: values_N.to("cpu", torch.float64),
        lambda: values_N.sum(dtype=torch.float64),
        lambda: torch.zeros(3, dtype=torch.float64).copy_(values_N),
        lambda: torch.zeros(3, dtype=torch.float64, device=MPS),
        lambda: torch.tensor([0.0], dtype=torch.float64, device="mps"),
    ):
        with pytest.raises(TypeError, match="float64"):
            to_float64()
    with pytest.raises(RuntimeError, match="same device"):
        values_N + torch.zeros(3)


def test_an_evaluation_asks_for_no_float64(faces: PreparedData, make_stored: MakeStored) -> None:
    roles = AttributeRoles.assign(faces.attributes, ["Young"], ["Male"], ["Gray_Hair"])
    scorer = train_yardstick(faces, roles, images=32, device=torch.device("cpu"))

    def evaluated(device: torch.device) -> Evaluation:
        stored = make_stored()
        stored.model.to(device)
        yardstick: Yardstick = replace(
            scorer, networks=deepcopy(scorer.networks).to(device), known_latents={}
        )
        instruments = Instruments(yardstick, of_yardstick(yardstick))
        return evaluate([stored], faces, instruments=instruments)

    expected = evaluated(torch.device("cpu"))
    with PretendedAppleGPU():
        found = evaluated(MPS)
    assert [picture.name for picture in found.pictures] == [picture.name for picture in expected.pictures]
    assert leaves(found.numbers) == pytest.approx(leaves(expected.numbers), rel=1e-4, abs=1e-6)


def leaves(entry: object, path: str = "") -> dict[str, float]:
    """All numbers that an entry holds, by their places."""
    if isinstance(entry, dict | list):
        inside = entry.items() if isinstance(entry, dict) else enumerate(entry)
        return {place: leaf for key, part in inside for place, leaf in leaves(part, f"{path}/{key}").items()}
    return {path: entry} if isinstance(entry, int | float) else {}
