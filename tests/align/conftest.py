"""Faces at known places, and a stand-in for the detector in tests that are not about its accuracy."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from civae_core.align import aligner
from civae_core.align.mtcnn import Face

Find = Callable[[Image.Image], list[Face]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Find], None]:
    """Replace the detector by a function."""

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


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """A PNG of 225 million black pixels in 28 kB."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png(15_000, 15_000, 1, 0, bytes(15_000 * (1 + 15_000 // 8))))
    return path


@pytest.fixture
def in_16_bits() -> Callable[[Image.Image], bytes]:
    """Makes a PNG with 16 bits in each of three colours, which Pillow cannot write."""

    def encode(picture: Image.Image) -> bytes:
        wide = np.asarray(picture.convert("RGB")).astype(">u2") * 257
        return png(*picture.size, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide))

    return encode


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
