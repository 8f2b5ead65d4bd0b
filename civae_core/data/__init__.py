"""Images and their attributes: sources, the packed format on disk, and its reader."""

from civae_core.data.prepared import PreparedData, Truth

__all__ = ["PreparedData", "Truth"]
