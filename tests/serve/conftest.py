"""A page on two small models, one of them with perturbed weights, and a photograph for it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from civae_core.data import PreparedData
from civae_core.inference.pictures import Picture, Pictures
from civae_core.inference.torch_engine import TorchEngine
from civae_core.model.stored import load_model

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from civae_core.serve.limits import Limits
    from civae_core.serve.studio import Studio


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Skip the tests of the page if the extra is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        return collection_path.name.startswith("test_") or None
    return None


@pytest.fixture(scope="session")
def engines(trained: Path) -> tuple[TorchEngine, TorchEngine]:
    import torch

    first, second = TorchEngine(load_model(trained)), TorchEngine(load_model(trained))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in second.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return first, second


@pytest.fixture(scope="session")
def examples(faces: PreparedData) -> list[Picture]:
    found = Pictures([f"{faces.path}#test[0:3]"], faces.preprocessing)
    return [picture for picture in found if isinstance(picture, Picture)]


@pytest.fixture
def make_studio(engines: tuple[TorchEngine, TorchEngine], examples: list[Picture]) -> Callable[..., "Studio"]:
    from civae_core.serve.studio import ServedModel, Studio

    def make(limits: "Limits | None" = None) -> "Studio":
        models = [ServedModel(name, engine) for name, engine in zip(("ours", "other"), engines, strict=True)]
        return Studio(models, examples, limits)

    return make


@pytest.fixture
def visit(make_studio: Callable[..., "Studio"]) -> Callable[..., "TestClient"]:
    """A visitor of a page; keyword arguments set the page's limits."""
    from starlette.testclient import TestClient

    from civae_core.serve.app import make_app
    from civae_core.serve.limits import Limits

    def make(headers: dict[str, str] | None = None, any_address: bool = False, **limits: Any) -> TestClient:
        app = make_app(make_studio(Limits(**limits)), any_address=any_address)
        return TestClient(app, base_url="http://127.0.0.1:8642", headers=headers)

    return make


@pytest.fixture(scope="session")
def photograph(examples: list[Picture]) -> bytes:
    """A built-in face as a PNG of 90 × 120 pixels."""
    face = Image.fromarray(examples[1].pixels_CHW.transpose(1, 2, 0)).resize(
        (90, 90), Image.Resampling.BICUBIC
    )
    canvas = Image.fromarray(np.full((120, 90, 3), 90, dtype=np.uint8))
    canvas.paste(face, (0, 15))
    return encoded(canvas)


def encoded(picture: Image.Image, format_: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_)
    return buffer.getvalue()
