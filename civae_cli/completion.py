"""Shell completion of runs, prepared data, attributes and their values. Imports nothing heavy.

A completion runs while somebody is typing: it never fails, and gives no answer rather than a slow one.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from civae_core.errors import CivaeError
from civae_core.file_names import MANIFEST
from civae_core.model_header import read_roles
from civae_core.model_paths import find_model_file, newest_run
from civae_core.reading import read_at_most

_MOST_MANIFEST_BYTES = 2**18
"""Largest dataset.yml that is read here: it takes a second or two, and lists thousands of attributes or shards."""
_SPECIAL = re.compile(r"""[\s"'`$;&|<>(){}\[\]\\!*?~#^]""")


def complete_model(incomplete: str) -> list[str]:
    """Runs by path, those under ./runs first."""
    return _folders(incomplete, "runs", _is_model)


def complete_data(incomplete: str) -> list[str]:
    """Folders of prepared data by path, those under ./data first."""
    return _folders(incomplete, "data", _is_data)


def complete_path(incomplete: str) -> list[str]:
    """Paths of runs and of prepared data, since `civae info` describes both."""
    return sorted({*complete_model(incomplete), *complete_data(incomplete)})


def complete_treatment_value(ctx: typer.Context, incomplete: str) -> list[str]:
    """`Young=0`, `Young=1`, `Young=flip`: treatments of the model named on the command line, else of the newest."""
    return _assignments(ctx, ("treatments",), incomplete, flip=True)


def complete_number_of_treatment(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same without `Young=flip`, for commands without a photograph whose treatment could be flipped."""
    return _assignments(ctx, ("treatments",), incomplete, flip=False)


def complete_input_value(ctx: typer.Context, incomplete: str) -> list[str]:
    """`Male=0`, `Male=1`: values of the model's treatments and covariates."""
    return _assignments(ctx, ("treatments", "covariates"), incomplete, flip=False)


def complete_covariate(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the model's covariates."""
    return _offered(a["name"] for a in _of_model(ctx, ("covariates",)))


def complete_attribute(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of all attributes of the data named on the command line, prepared or not."""
    named = _stated(ctx, "data", "source")
    return _names_in(Path(named)) if named else []


def _folders(incomplete: str, usual: str, wanted: Callable[[Path], bool]) -> list[str]:
    """Wanted folders whose path begins as typed, and those inside such paths; those in `usual` for an empty text."""
    parent = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    if not incomplete and Path(usual).is_dir():
        parent = Path(usual)
    start = "./" if incomplete.startswith("./") else ""
    begun = [path for path in _inside(parent) if f"{start}{path}".startswith(incomplete)]
    found = [path for path in begun if wanted(path)]
    found += [inner for path in begun if not wanted(path) for inner in _inside(path) if wanted(inner)]
    return [f"{start}{path}" for path in found]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _is_model(path: Path) -> bool:
    try:
        find_model_file(path)
    except (CivaeError, OSError):
        return False
    return True


def _is_data(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _stated(ctx: typer.Context, *names: str) -> str | None:
    """The value that the command line gives so far for one of these parameters."""
    for name in names:
        if value := ctx.params.get(name):
            return str(value)
    arguments = [p.name for p in ctx.command.params if p.param_type_name == "argument"]
    # If the line ends in an option without its value, its arguments are left over, without their names.
    return ctx.args[0] if ctx.args and arguments and arguments[0] in names else None


def _of_model(ctx: typer.Context, groups: tuple[str, ...]) -> list[dict[str, Any]]:
    named = _stated(ctx, "model", "run")
    try:
        roles = read_roles(find_model_file(Path(named) if named else newest_run()))
    except (CivaeError, OSError):
        return []
    return [attribute for group in groups for attribute in roles.get(group, [])]


def _assignments(ctx: typer.Context, groups: tuple[str, ...], incomplete: str, *, flip: bool) -> list[str]:
    found = []
    for attribute in _of_model(ctx, groups):
        if attribute.get("kind") == "binary":
            values = ["0", "1", *(["flip"] if flip else [])]
        else:
            known = [attribute.get(key, 0) for key in ("low", "mean", "high")]
            values = [f"{number:g}" for number in known if isinstance(number, int | float)]
        found += [f"{attribute['name']}={value}" for value in values]
    return _offered(text for text in found if text.startswith(incomplete))


def _names_in(path: Path) -> list[str]:
    """Attributes of prepared data, of CelebA's list or of a table, from its first lines."""
    from civae_core.bounded_yaml import plain_values

    try:
        if _is_data(path):
            text = read_at_most(path / MANIFEST, _MOST_MANIFEST_BYTES).decode("utf-8")
            return _offered(str(a["name"]) for a in plain_values(text)["attributes"])
        for name, separator, line in (
            ("list_attr_celeba.txt", None, 1),
            ("list_attr_celeba.csv", ",", 0),
            ("metadata.csv", ",", 0),
            ("metadata.tsv", "\t", 0),
        ):
            for folder in (path, path / "Anno"):
                if (folder / name).is_file():
                    with (folder / name).open(encoding="utf-8-sig") as file:
                        header = [file.readline(2**20) for _ in range(line + 1)][line]
                    known = ("file_name", "image_id", "split")
                    return _offered(text for text in header.strip().split(separator) if text not in known)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return []


def _offered(names: Iterable[str]) -> list[str]:
    """Those of a stranger's names that are plain words to a shell and plain text to a terminal."""
    return [name for name in names if name.isprintable() and not _SPECIAL.search(name)]
