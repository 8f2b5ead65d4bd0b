"""The fingerprint of the scoring code: what it covers, and what changes it."""

from pathlib import Path

import civae_core
from civae_core.evaluation.fingerprint import (
    WITHOUT_BEARING,
    code_fingerprint,
    scoring_files,
    scoring_fingerprint,
)


def test_a_change_of_code_counts_and_one_of_comments_does_not(tmp_path: Path) -> None:
    file = tmp_path / "measure.py"

    def found(text: str, place: str = "evaluation/measure.py") -> str:
        file.write_text(text, encoding="utf-8")
        return code_fingerprint({place: file})

    first = found("def error(a, b):\n    return abs(a - b)\n")
    assert found("# An error.\ndef error(a,  b):\n    return abs(a-b)  # never negative\n") == first
    squared = "def error(a, b):\n    return (a - b) ** 2\n"
    assert len({first, found(squared), found(squared, "evaluation/renamed.py")}) == 3


def test_it_covers_all_that_computes_numbers_and_what_is_left_out_exists() -> None:
    files = scoring_files()
    computing = ("evaluation/tally.py", "evaluation/leak.py", "model/decoder.py", "counterfactual.py")
    assert {*computing, "ranking.py", "yardstick/quality.py", "balance/diagnostics.py"} <= set(files)
    assert not {"evaluation/report.py", "training/loop.py", "benchmark/cells.py"} & set(files)
    package = Path(civae_core.__file__).parent
    assert [name for name in WITHOUT_BEARING if not (package / name).exists()] == []
    assert scoring_fingerprint() == code_fingerprint(files)
