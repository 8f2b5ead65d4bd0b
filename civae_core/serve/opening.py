"""Open the studio that a command line asks for: models by path, each under a short name, and examples."""

from collections.abc import Sequence
from pathlib import Path

from civae_core.errors import DataError, UsageError, escaped
from civae_core.inference.engines import open_engine
from civae_core.inference.pictures import Picture, Pictures
from civae_core.model_paths import FILE_NAME, LINKS
from civae_core.serve.limits import Limits
from civae_core.serve.studio import ServedModel, Studio

MOST_EXAMPLES = 200


def open_studio(
    runs: Sequence[Path],
    examples: str | None = None,
    *,
    engine: str = "auto",
    device: str = "auto",
    limits: Limits | None = None,
) -> Studio:
    """Open the models, read the examples, and ask each model once.

    Args:
        runs: models, as accepted by `open_engine`.
        examples: a selection of prepared data.
        engine, device: as for `open_engine`.
        limits: limits of the page; None uses the defaults.

    Raises:
        UsageError: as for `open_engine`; or the examples are not prepared data, too many, or of another size.
        DataError: as for `open_engine`.
    """
    names = short_names(runs)
    models = [
        ServedModel(name, open_engine(run, engine, device)) for name, run in zip(names, runs, strict=True)
    ]
    pictures = _examples(examples, models[0]) if examples else []
    studio = Studio(models, pictures, limits)
    studio.warm_up()
    return studio


def short_names(runs: Sequence[Path]) -> list[str]:
    """The last part of each path, after as many parts as are needed to tell them apart; repeats are numbered.

    The name of a checkpoint follows that of its run: `young/best`. Bytes of a name that are no UTF-8 are escaped.
    """
    paths = [_called(run) for run in runs]
    names: list[str] = []
    for path in paths:
        same = [other for other in paths if other != path]
        for count in range(1 + (path.name in LINKS or path.name.startswith("step-")), len(path.parts)):
            name = "/".join(path.parts[-count:])
            if all("/".join(other.parts[-count:]) != name for other in same):
                break
        number = sum(earlier == path for earlier in paths[: len(names)])
        names.append(escaped(f"{name} ({number + 1})" if number else name))
    return names


def _called(run: Path) -> Path:
    """A path as typed, with links resolved except in its last part, and without parts common to all models."""
    path = run.parent if run.name == FILE_NAME else run
    path = path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()
    return path.parent.parent / path.name if path.parent.name == "checkpoints" else path


def _examples(selection: str, model: ServedModel) -> list[Picture]:
    found = Pictures([selection], model.engine.preprocessing, attributes=model.engine.roles.inputs)
    if found.has_photos:
        raise UsageError(
            f"--examples {selection}: not a selection of prepared images", hint="for example DATA#test[0:24]"
        )
    if len(found) > MOST_EXAMPLES:
        raise UsageError(
            f"--examples {selection}: {len(found):,} pictures, at most {MOST_EXAMPLES} are shown",
            hint="take fewer, as in DATA#test[0:24]",
        )
    pictures = []
    for picture in found:
        if isinstance(picture, DataError):
            raise picture
        pictures.append(picture)
    return pictures
