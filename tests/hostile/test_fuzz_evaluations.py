"""Evaluations and metrics in the folder of a stranger's run, told by `info` and a card as far as they make sense."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mutations import json_values, replaced
from survival import survives

from civae_cli.info import card as shown
from civae_core.benchmark.cells import trained_seconds
from civae_core.errors import DataError
from civae_core.export.hub import find_evaluation
from civae_core.export.model_card import write_card
from civae_core.inspection import inspect
from civae_core.model.stored import read_card
from civae_core.model_paths import find_model_file
from civae_core.overfitting import overfit_of
from civae_core.training.metrics_file import MetricsFile

ROOT = Path(__file__).parents[2]
EVALUATION = json.loads((ROOT / "docs" / "quickstart.json").read_text(encoding="utf-8"))


def look_at(run: Path) -> None:
    """What `info` does, with and without `--json`."""
    facts = inspect(run)
    json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()
    assert shown(facts).splitlines()


@given(data=st.data())
def test_an_evaluation_with_other_parts(measured_run: Path, data: st.DataObject) -> None:
    file = find_model_file(measured_run)
    card = read_card(file)
    changed = data.draw(replaced(EVALUATION))
    if data.draw(st.booleans()):
        changed |= {"images_seen": {"ours": card.images_seen}}

    def use() -> None:
        (measured_run / "evaluation.json").write_text(json.dumps(changed), encoding="utf-8")
        look_at(measured_run)
        found, _ = find_evaluation(file, card)
        assert "## Overlap" in write_card(card, found, title="t", licence="mit", data_licence="none")

    survives("evaluation", use, may_raise=DataError)


@given(values=st.lists(json_values(), max_size=4))
def test_metrics_with_any_lines(measured_run: Path, values: list[Any]) -> None:
    names = ("images", "valid_loss", "images_per_second", "pairing_seconds")
    lines = [*map(json.dumps, values), *(json.dumps(dict.fromkeys(names, value)) for value in values)]

    def use() -> None:
        metrics = measured_run / "metrics.jsonl"
        metrics.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        look_at(measured_run)
        assert isinstance(trained_seconds(metrics), float)
        overfit_of(measured_run)
        MetricsFile(metrics).cut_back(lines=None, images=100)

    survives("metrics", use)
