"""The fingerprint of the scoring code: what it covers, and what changes it."""

from pathlib import Path

from civae_core.evaluation import fingerprint
from civae_core.evaluation.fingerprint import SHOWING, code_fingerprint, scoring_files, scoring_fingerprint


def test_a_change_of_code_counts_and_one_of_comments_does_not(tmp_path: Path) -> None:
    file, other = tmp_path / "measure.py", tmp_path / "renamed.py"

    def found(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return code_fingerprint([file])

    first = found("def error(a, b):\n    return abs(a - b)\n")
    assert found("# An error.\ndef error(a,  b):\n    return abs(a-b)  # never negative\n") == first
    changed = found("def error(a, b):\n    return (a - b) ** 2\n")
    assert changed != first
    file.rename(other)
    assert code_fingerprint([other]) != changed


def test_it_covers_all_of_the_evaluation_but_what_only_shows_numbers() -> None:
    names = [file.name for file in scoring_files()]
    assert {"tally.py", "leak.py", "metrics.py", "realism.py", "counterfactual.py"} <= set(names)
    modules = {path.stem for path in Path(fingerprint.__file__).parent.glob("*.py")}
    assert modules >= SHOWING, "a module that shows numbers has gone"
    assert len(set(names)) == len(names) and not {f"{name}.py" for name in SHOWING} & set(names)
    assert scoring_fingerprint() == code_fingerprint(scoring_files())
