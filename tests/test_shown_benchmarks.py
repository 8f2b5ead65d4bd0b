"""Every benchmark that a document shows is run, on models and data small enough for seconds."""

import importlib
import inspect
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from invoked import benchmarks_invoked
from PIL import Image
from shown import DOCUMENTS, ROOT

from civae_core.attributes import AttributeRoles
from civae_core.config import Config
from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import TruthSpec
from civae_core.data.sources.faces import faces_source
from civae_core.evaluation.instruments import Instruments, choose_instruments
from civae_core.figures.pictures import to_picture
from civae_core.model import IntactVAE
from civae_core.model.stored import ModelCard, save_model

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
SHOWN = re.compile(r"python (?:-m )?benchmarks[/.](\w+)(?:\.py)?([^`\n|#]*)")
ELSEWHERE = {
    "performance": "test_performance.py",
    "repeat_tests": "test_repeat_tests.py",
    "stress": "reliability/test_kills.py",
}
"""Benchmarks that other tests run."""
WAYS = ("--pairing", "--upright")
"""Options with which a benchmark does something else; it is run with and without them."""


@dataclass(frozen=True)
class Small:
    """How a benchmark is run in seconds, and what it then prints."""

    says: str
    more: str = ""
    run: str = "exported"
    changes: dict[str, Any] = field(default_factory=dict)
    """Smaller values for names in its module, or in another module that is named before a dot."""


def as_it_is(photo: Any, path: Path) -> None:
    """A photograph's file, in its own few pixels."""
    Image.fromarray(photo.pixels_HWC).save(path)


def quickly_chosen(*of: Any) -> Instruments:
    """Instruments whose scorer is hardly trained."""
    return choose_instruments(*of, scorer_images=64)


SMALL = {
    "against_original": Small(
        r"\| ours is to reach \| it came to \|",
        "--covariates Male --original-images 16 --our-images 40 --limit 4",
        changes={
            "ONLY_TRAINED": {
                "train.keep": 1,
                "train.sample_every": 10**12,
                "train.checkpoint_every": 10**12,
                "train.validate_images": 4,
                "train.pairing_images": 8,
                "train.batch_size": 8,
            },
            "POINTS": {"original": (0.5, 1.0), "ours": (0.2, 1.0), "short": (1.0,)},
            "START": "fork",
        },
    ),
    "ddp_overhead": Small(
        r"gradients", "--batch 2 --size 32 --steps 1 --rounds 1", changes={"START": "fork"}
    ),
    "dose_response": Small(r"Age, model\n", run="ages"),
    "effect_floor": Small(r"0\.\d+", "--subjects 4 --draws 2 --size 32"),
    "engines": Small(r"onnx", "--batch 2 --rounds 1"),
    "evaluate_images": Small(r'"images": 2', "--images 2"),
    "find_faces": Small(r"found 2 of 2"),
    "fuzz": Small(
        r"1 rounds, [\d,]+ inputs, failures 0", "--minutes 1e-5 --examples 2 --only test_any_treat"
    ),
    "joint_effect": Small(r"pasted +\d\.\d+ \[", "--limit 4", run="both"),
    "kept_cells": Small(r"\| `[\w-]+` \| \.\d+"),
    "kept_cells --upright": Small(r"\| relative effect error \| \.\d+"),
    "masks": Small(r'"relative_effect_error"', "--images 4"),
    "method_pictures": Small(r""),
    "native_photo": Small(
        r"along edges  relative",
        "--subjects 1",
        changes={"LARGE": 64, "save_large": as_it_is},
    ),
    "network_trials": Small(
        r"\| attention at 8×8 \| [\d,]+ \| \d+\.\d\d \| 16 \|",
        "--only ours 'attention at 8×8' --seconds 0.01 --limit 4 --jobs 1",
        changes={"START": "fork", "WARM": 1, "TIMED": 1},
    ),
    "noise_pairing": Small(r"\d\.\d+", "--images 4"),
    "samples": Small(
        r'"truncation"',
        "--images 8",
        changes={"choose_instruments": quickly_chosen, "civae_core.evaluation.samples.FEWEST_IMAGES": 4},
    ),
    "serve_latency": Small(r'"median_ms"', changes={"MOVES": 2, "WARM_UP": 1}),
    "unfamiliar": Small(r"photographs +\d+ of +\d+", "--n 10"),
}


def shown() -> dict[str, str]:
    """Arguments of each benchmark where a document shows it last, also for each of several ways to call it."""
    found = {}
    for document in DOCUMENTS:
        for name, arguments in SHOWN.findall(document.read_text(encoding="utf-8")):
            found[" ".join([name, *(way for way in WAYS if way in arguments)])] = arguments
    return found


def stored(out: Path, data: PreparedData, roles: AttributeRoles) -> None:
    """An untrained model of prepared data, as a folder."""
    config = Config.model_validate(
        {
            "data": {
                "path": str(data.path),
                "treatment": [attribute.name for attribute in roles.treatments],
                "covariates": [attribute.name for attribute in roles.covariates],
                "descendants": [attribute.name for attribute in roles.descendants],
            },
            "model": {"latent": 8, "width": 8, "stages": [1, 2, 4], "prior_hidden": 16, "place_latents": 4},
        }
    )
    torch.manual_seed(0)
    model = IntactVAE(config.model, roles, data.size, data.channels).eval()
    identity = {"name": data.name, "path": str(data.path), "fingerprint": data.fingerprint}
    out.mkdir()
    save_model(
        model, ModelCard(config, roles, data.preprocessing, 0, identity, []), out / "model.safetensors"
    )


def parse_do(text: str) -> dict[str, float | str]:
    pairs = (pair.split("=") for pair in text.split(","))
    return {name: value if value == "flip" else float(value) for name, value in pairs}


@pytest.fixture(scope="session")
def runs(exported: Path, made_once: MadeOnce) -> dict[str, Path]:
    """A trained run with its export, and untrained ones of two treatments and of a dose."""

    def made(name: str, source: str, treatments: list[str], truths: list[str]) -> Path:
        def make(out: Path) -> None:
            specs = [TruthSpec(text, parse_do(text)) for text in truths]
            faces = faces_source(
                count=100, seed=0, overlap=1.0, truths=specs, size=32, channels=3, name=source
            )
            data = prepare(faces, out / "data", workers=1, max_bad=MaxBad.parse("0")).data
            stored(
                out / "run",
                data,
                AttributeRoles.assign(data.attributes, treatments, ["Smiling"], ["Wrinkles"]),
            )

        return made_once(f"shown-{name}", make) / "run"

    both = ["Young=flip,Male=flip", "Young=flip", "Male=flip"]
    return {
        "exported": exported,
        "both": made("both", "synthetic:faces", ["Young", "Male"], both),
        "ages": made("ages", "synthetic:faces-age", ["Age"], ["Age=20", "Age=50"]),
    }


def stand_ins(own: Path, run: str, data: str) -> dict[str, str]:
    """What takes the place of the runs, data, photographs and results that documents name."""
    runs = ("RUN", "RUN2", "quickstart/ours", "headline/runs/overlap-0.5/ours-seed0")
    places = dict.fromkeys(runs, run)
    places |= dict.fromkeys(("data/faces", "data/photographs", "quickstart/data"), data)
    places |= dict.fromkeys(("PHOTO", "FILE"), str(own / "photos" / "0.jpg"))
    places |= dict.fromkeys(("against-photographs", "docs/against-photographs"), str(own / "more"))
    places |= {
        "FOLDER": str(own / "photos"),
        "docs": str(own),
        "docs/against-original": str(own / "original"),
    }
    written = ("against", "trials", "docs/network.md", "docs/against-original.md")
    places |= {name: str(own / Path(name).name) for name in written}
    for name in ("levers", "headline"):
        places |= {name: str(own), f"docs/{name}.json": shutil.copy(ROOT / "docs" / f"{name}.json", str(own))}
    return places


@pytest.mark.parametrize("named", [name for name in shown() if name.split()[0] not in ELSEWHERE])
def test_every_benchmark_shown_runs(
    named: str,
    runs: dict[str, Path],
    faces: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    name = named.split()[0]
    small = SMALL.get(named) or SMALL[name]
    (tmp_path / "photos").mkdir()
    for row in range(2):
        to_picture(faces.images(torch.tensor([row]))[0]).resize((178, 218)).save(
            tmp_path / f"photos/{row}.jpg"
        )
    places = stand_ins(tmp_path, str(runs[small.run]), str(faces.path))
    words = [places.get(word, word) for word in shlex.split(shown()[named])]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, *shlex.split(small.more)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module(f"benchmarks.{name}")
    for changed, value in small.changes.items():
        place, _, attribute = changed.rpartition(".")
        monkeypatch.setattr(importlib.import_module(place) if place else module, attribute, value)
    module.main()
    said = capfd.readouterr().out
    assert re.search(small.says, said), said
    if name == "method_pictures":
        assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_benchmarks_that_are_run_elsewhere_are_run_there(name: str) -> None:
    assert name in benchmarks_invoked((ROOT / "tests" / ELSEWHERE[name]).read_text(encoding="utf-8"))
    assert name in {shown_name.split()[0] for shown_name in shown()}


def test_a_benchmark_that_is_only_named_is_not_taken_for_one_that_is_run() -> None:
    named = """
    'python benchmarks/fuzz.py'
    # from benchmarks.masks import main
    from benchmarks import engines, samples
    from benchmarks.kept_cells import table
    from benchmarks.stress.__main__ import main
    samples.main()
    print(engines.name, table(), %s)
    """
    text = inspect.cleandoc(named)
    assert benchmarks_invoked(text % "run_script(main)") == {"samples", "stress"}
    assert benchmarks_invoked(text % "'main'") == {"samples"}
