"""Independent networks that judge counterfactual images.

An attribute scorer, and a latent space that measures how far an image has moved. They never take part in a model's
training, and share neither architecture nor random draws with it (METHOD 6).
"""

from civae_core.yardstick.cache import yardstick_for
from civae_core.yardstick.fit import train_yardstick
from civae_core.yardstick.instrument import Reading, Yardstick, YardstickCard
from civae_core.yardstick.quality import score_quality
from civae_core.yardstick.stored import load_yardstick, save_yardstick

__all__ = [
    "Reading",
    "Yardstick",
    "YardstickCard",
    "load_yardstick",
    "save_yardstick",
    "score_quality",
    "train_yardstick",
    "yardstick_for",
]
