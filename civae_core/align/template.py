"""The position of faces in CelebA's aligned portraits, and the square that shows any face in that position."""

import math

import numpy as np

from civae_core.celeba import HEIGHT, WIDTH
from civae_core.data.images import Preprocessing
from civae_core.native.placement import Placement

LANDMARKS_52 = np.array([[69.5, 111.6], [108.5, 111.7], [88.3, 136.3], [71.6, 152.9], [106.0, 152.8]])
"""Medians of the landmarks that `FaceFinder` finds in aligned portraits; `benchmarks/find_faces.py` prints them."""
WEIGHTS_5 = np.array([2.0, 2.0, 0.0, 1.0, 1.0])
"""Eyes count most, as in CelebA; the nose does not, since it shows where a face looks rather than where it is."""
TOLERANCE = 0.1
"""Largest offset of a square's corners, as a share of its side, in a portrait that counts as aligned."""


def place_face(landmarks_52: np.ndarray, preprocessing: Preprocessing, width: int, height: int) -> Placement:
    """The square that shows a model a face as if it were CelebA's: rotated, scaled and moved (Umeyama 1991).

    Args:
        landmarks_52: the face's landmarks in an upright photograph of width × height pixels.
        preprocessing: which part of a portrait the model is shown.
    """
    # Points as complex numbers make rotation and scaling a single product: photograph = turn · portrait + shift.
    portrait_5, photo_5 = LANDMARKS_52 @ [1, 1j], landmarks_52 @ [1, 1j]
    share_5 = WEIGHTS_5 / WEIGHTS_5.sum()
    from_5, to_5 = portrait_5 - share_5 @ portrait_5, photo_5 - share_5 @ photo_5
    turn = complex(share_5 @ (from_5.conj() * to_5) / (share_5 @ np.abs(from_5) ** 2))
    shift = complex(share_5 @ photo_5 - turn * (share_5 @ portrait_5))
    square = Placement.of_crop(preprocessing, WIDTH, HEIGHT)
    corner = turn * complex(square.left, square.top) + shift
    across = turn * square.side
    return Placement(width, height, corner.real, corner.imag, (across.real, across.imag))


def is_aligned(face: Placement, crop: Placement) -> bool:
    """Whether the centred square already shows the face roughly where it belongs."""
    off = [
        math.dist(here, there) / crop.side for here, there in zip(face.corners(), crop.corners(), strict=True)
    ]
    return max(off) <= TOLERANCE
