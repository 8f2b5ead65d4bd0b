"""The names of an evaluation's methods, and which runs are one method trained with several seeds."""

from collections.abc import Iterable, Sequence

from civae_core.errors import UsageError
from civae_core.evaluation.methods import TrainedModel
from civae_core.model.stored import StoredModel

MEANINGS = {
    "copy": "the input returned unchanged",
    "cvae": "the same network with the prior N(0, I)",
    "original": "the original project's objective and inference",
    "ours": "learned prior, latent and pixel noise abducted",
    "truth": "the true counterfactual itself: what the instruments say of a faultless answer",
}
"""Methods in the order of tables; any others come just before the truth."""


def ordered(methods: Iterable[str]) -> list[str]:
    """Sort method names: the baselines first, the truth last."""
    names = list(methods)
    others = [name for name in names if name not in MEANINGS]
    known = [name for name in MEANINGS if name in names]
    return [*(n for n in known if n != "truth"), *others, *(n for n in known if n == "truth")]


BOOKKEEPING = ("log_every", "checkpoint_every", "sample_every", "validate_images", "keep")
"""Training settings on which no weight depends."""

OBJECTIVE_NAMES = {"intact": "ours", "cvae": "cvae", "original": "original"}


def name_methods(models: Sequence[StoredModel]) -> list[TrainedModel]:
    """Name models after their objectives, in the order given.

    Runs that differ only in their seed form a group with one name; other runs with the same objective are
    distinguished by their folders.

    Raises:
        UsageError: a model was trained for other roles or another image format than the first one.
    """
    _require_one_question(models)
    groups: dict[str, dict[int, StoredModel]] = {}
    named = []
    for stored in models:
        objective, seed = OBJECTIVE_NAMES[stored.card.config.objective], stored.card.config.train.seed
        group = next(
            (
                name
                for name, members in groups.items()
                if seed not in members and all(_is_repetition(stored, member) for member in members.values())
            ),
            None,
        )
        if group is None:
            group = objective if objective not in groups else f"{objective} ({_folder_name(stored)})"
            group = group if group not in groups else f"{objective} ({stored.path})"
        groups.setdefault(group, {})[seed] = stored
        named.append((group, seed, stored))
    return [
        TrainedModel(group if len(groups[group]) == 1 else name_of_seed(group, seed), stored, group)
        for group, seed, stored in named
    ]


def name_of_seed(group: str, seed: int) -> str:
    """The name of one run where several seeds of a method are evaluated."""
    return f"{group}, seed {seed}"


def _is_repetition(one: StoredModel, other: StoredModel) -> bool:
    """Whether two runs differ only in their seed and in what has no bearing on the weights."""
    return _essence(one) == _essence(other)


def _essence(stored: StoredModel) -> tuple[object, ...]:
    config = stored.card.config.model_dump(
        exclude={"data": {"path", "cache"}, "train": {"seed", *BOOKKEEPING}}
    )
    return config, stored.card.images_seen, stored.card.data["fingerprint"]


def _require_one_question(models: Sequence[StoredModel]) -> None:
    wanted = _question_of(models[0])
    for stored in models:
        for what, value in _question_of(stored).items():
            if value != wanted[what]:
                raise UsageError(
                    f"{stored.path}: its {what} is {value}, but that of {models[0].path} is {wanted[what]}",
                    hint="compare models trained for the same question",
                )


def _question_of(stored: StoredModel) -> dict[str, str]:
    """What two models must share to be compared, in words."""
    roles, form = stored.card.roles, stored.card.preprocessing
    return {
        "treatment": ", ".join(a.name for a in roles.treatments),
        "list of covariates": ", ".join(a.name for a in roles.covariates) or "empty",
        "image format": f"{form['channels']}×{form['size']}×{form['size']}",
    }


def _folder_name(stored: StoredModel) -> str:
    parts = [part for part in stored.path.parent.parts if part not in ("checkpoints", "last", "best")]
    return parts[-1] if parts else str(stored.path)
