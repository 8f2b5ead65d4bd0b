"""Columns of a table that were left out of the prepared data: asking for one is refused with the reason."""

from collections.abc import Mapping
from pathlib import Path

from civae_core.errors import UsageError
from civae_core.file_names import MOST_REPORT_BYTES, REPORT_JSON
from civae_core.reading import read_json


def refuse_left_out(name: str, left_out: Mapping[str, str], where: str) -> None:
    """Refuse a column that was left out.

    Args:
        left_out: why, by column.
        where: the flag or key that names the column.

    Raises:
        UsageError: the column was left out; the message says why.
    """
    if name in left_out:
        raise UsageError(
            f"{where}: column {name} was left out: {left_out[name]}",
            hint="fill it with numbers and prepare the data again: 0 and 1 for two categories; for more, a column "
            "of 0 and 1 for each",
        )


def read_left_out(folder: Path) -> dict[str, str]:
    """Why columns were left out of prepared data, as its report says; empty if that is missing or damaged."""
    try:
        left_out = read_json(folder / REPORT_JSON, MOST_REPORT_BYTES)["left_out"]
        return {str(name): str(why) for name, why in left_out.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
