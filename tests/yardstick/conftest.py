"""Toy pictures of two confounded attributes, and a scorer trained on the shared faces."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.data import PreparedData
from civae_core.yardstick import Yardstick, load_yardstick, save_yardstick, train_yardstick

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
CPU = torch.device("cpu")


class Pictures:
    """Stands in for prepared data: 16 px, `Left` a faint bright patch on the left, `Right` a clear one on the right.

    `agree` is the probability that both labels are equal; the test split has all four cells in equal numbers.
    """

    name, fingerprint, path, size, channels = "pictures", "0" * 64, Path("pictures"), 16, 1
    attributes = (Attribute("Left", "binary"), Attribute("Right", "binary"))

    def __init__(self, count: int = 600, agree: float = 0.9, faint: float = 0.2) -> None:
        generator = torch.Generator().manual_seed(0)
        right_N = (torch.arange(count) % 2).float()
        same_N = torch.rand(count, generator=generator) < agree
        left_N = torch.where(same_N, right_N, 1 - right_N)
        cells = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(30, 1)
        self.table_NA = torch.cat([torch.stack([left_N, right_N], dim=1), cells])
        self.splits = {
            "train": torch.arange(count - 60),
            "valid": torch.arange(count - 60, count),
            "test": torch.arange(count, count + len(cells)),
        }
        self.pixels = draw(self.table_NA, generator, faint)

    def rows(self, split: str) -> Tensor:
        return self.splits[split]

    def images(self, rows: Tensor) -> Tensor:
        return self.pixels[rows]

    def column(self, name: str) -> Tensor:
        return self.columns([name])[:, 0]

    def columns(self, names: Sequence[str]) -> Tensor:
        known = [a.name for a in self.attributes]
        return self.table_NA[:, [known.index(name) for name in names]]


def draw(labels_N2: Tensor, generator: torch.Generator, faint: float) -> Tensor:
    """Uint8 [N,1,16,16]: patches in noise."""
    y_NCHW = 0.4 + 0.1 * torch.randn(len(labels_N2), 1, 16, 16, generator=generator)
    y_NCHW[:, :, 6:10, 2:6] += faint * labels_N2[:, 0, None, None, None]
    y_NCHW[:, :, 2:14, 10:14] += 0.5 * labels_N2[:, 1, None, None, None]
    return (255 * y_NCHW.clamp(0, 1)).round().to(torch.uint8)


@pytest.fixture(scope="session")
def face_roles(faces: PreparedData) -> AttributeRoles:
    return AttributeRoles.assign(faces.attributes, ["Young"], ["Male"], ["Gray_Hair", "Wrinkles"])


@pytest.fixture(scope="session")
def scorer(faces: PreparedData, face_roles: AttributeRoles, made_once: MadeOnce) -> Yardstick:
    """A scorer trained for a few seconds: it recognises age, if little else."""

    def make(file: Path) -> None:
        save_yardstick(train_yardstick(faces, face_roles, images=960, device=CPU), file)

    return load_yardstick(made_once("face-scorer", make))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache folder, which does not exist yet."""
    monkeypatch.setenv("CIVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures() -> Callable[..., Pictures]:
    return Pictures
