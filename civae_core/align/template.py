"""Where a face lies in CelebA's aligned portraits, and the square of a photograph in which a face lies likewise."""

import math

import numpy as np

from civae_core.celeba import HEIGHT, WIDTH
from civae_core.data.images import Preprocessing
from civae_core.native.placement import Placement

LANDMARKS_52 = np.array([[69.5, 111.6], [108.5, 111.7], [88.3, 136.3], [71.6, 152.9], [106.0, 152.8]])
"""Medians of what `FaceFinder` finds in aligned portraits; `benchmarks/find_faces.py` prints them."""
WEIGHTS_5 = np.array([2.0, 2.0, 0.0, 1.0, 1.0])
"""Eyes most, as in CelebA; the nose tells where a face looks rather than where it is."""
TOLERANCE = 0.1
"""Share of a square's side by which its corners may be off in a portrait that counts as aligned."""


def place_face(landmarks_52: np.ndarray, preprocessing: Preprocessing, width: int, height: int) -> Placement:
    """The square that a model is shown of a face: turned, scaled and moved as if it were CelebA's (Umeyama 1991).

    Args:
        landmarks_52: in an upright photograph of width × height pixels.
        preprocessing: which part of a portrait the model is shown.
    """
    # Points as complex numbers, so that turning and scaling is one product: photograph = turn · portrait + shift.
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
    """Whether the centred square shows the face about where it belongs already."""
    off = [
        math.dist(here, there) / crop.side for here, there in zip(face.corners(), crop.corners(), strict=True)
    ]
    return max(off) <= TOLERANCE
