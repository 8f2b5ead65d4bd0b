"""Names that lose no model, seeds that form a group, and models that may not be compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from civae_core.errors import UsageError
from civae_core.evaluation.naming import name_methods
from civae_core.model.stored import StoredModel

MakeStored = Callable[..., StoredModel]


def with_training(stored: StoredModel, path: str = "other/model.safetensors", **settings: int) -> StoredModel:
    config = stored.card.config
    train = config.train.model_copy(update=settings)
    card = replace(stored.card, config=config.model_copy(update={"train": train}))
    return replace(stored, card=card, path=Path(path))


def test_runs_that_differ_in_their_seed_form_a_group(make_stored: MakeStored) -> None:
    first, baseline = make_stored(), make_stored("cvae")
    repeated = with_training(first, seed=1, keep=9)
    longer = with_training(first, "longer/model.safetensors", seed=2, images=999_999)
    methods = name_methods([first, baseline, repeated, longer])
    assert [(m.name, m.group) for m in methods] == [
        ("ours, seed 0", "ours"),
        ("cvae", "cvae"),
        ("ours, seed 1", "ours"),
        ("ours (longer)", "ours (longer)"),
    ]


def test_models_are_named_by_objective_whatever_their_order(make_stored: MakeStored) -> None:
    models = [make_stored(objective) for objective in ("cvae", "original", "intact")]
    assert [method.name for method in name_methods(models)] == ["cvae", "original", "ours"]
    assert [method.stored for method in name_methods(models)] == models


def test_models_of_one_objective_are_told_apart_and_none_is_lost(make_stored: MakeStored) -> None:
    paths = [
        "a/young/checkpoints/step-1/model.safetensors",
        "b/young-long/checkpoints/last/model.safetensors",
        "c/young/checkpoints/last/model.safetensors",
        "d/young/checkpoints/last/model.safetensors",
        "model.safetensors",
    ]
    names = [method.name for method in name_methods([make_stored(path=path) for path in paths])]
    assert names == [
        "ours",
        "ours (young-long)",
        "ours (young)",
        f"ours ({Path(paths[3])})",
        "ours (model.safetensors)",
    ]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"size": 16}, "image format is 3×16×16, but that of {} is 3×32×32"),
        ({"covariates": ()}, "list of covariates is empty, but that of {} is Male"),
        ({"covariates": ("Male", "Smiling")}, "list of covariates is Male, Smiling, but that of {} is Male"),
        (
            {"treatments": ("Young", "Male"), "covariates": ()},
            "treatment is Young, Male, but that of {} is Young",
        ),
    ],
)
def test_models_of_another_question_are_refused(
    make_stored: MakeStored, other: dict[str, object], what: str
) -> None:
    models = [make_stored(), make_stored(path="other.safetensors", **other)]
    with pytest.raises(UsageError) as caught:
        name_methods(models)
    assert caught.value.message == f"other.safetensors: its {what.format(models[0].path)}"
    assert caught.value.hint
