"""Faces of known places, and a stand-in for the detector where its accuracy is not the question."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from civae_core.align import aligner
from civae_core.align.mtcnn import Face

Find = Callable[[Image.Image], list[Face]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Find], None]:
    """Puts a function in the detector's place."""

    def put(find: Find) -> None:
        class Finder:
            def find(self, photo: Image.Image) -> list[Face]:
                return find(photo)

        monkeypatch.setattr(aligner, "FaceFinder", Finder)
        monkeypatch.setattr(aligner, "is_installed", lambda: True)

    return put


@pytest.fixture
def face_at() -> Callable[..., Face]:
    """A face whose landmarks are CelebA's, scaled and then moved."""
    from civae_core.align.template import LANDMARKS_52

    def make(x: float, y: float, scale: float = 1.0) -> Face:
        points_52 = LANDMARKS_52 * scale + [x, y]
        box = (*(points_52.min(axis=0) - 20 * scale).tolist(), *(points_52.max(axis=0) + 20 * scale).tolist())
        return Face(0.99, box, np.asarray(points_52))

    return make
