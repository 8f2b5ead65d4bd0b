"""Images and their attributes: sources, the packed format on disk, and its reader."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from civae_core.data.prepared import PreparedData, Truth

__all__ = ["PreparedData", "Truth"]


def __getattr__(name: str) -> Any:
    """Import the reader on first use, so that importing the rest of this package does not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from civae_core.data import prepared

    return getattr(prepared, name)
