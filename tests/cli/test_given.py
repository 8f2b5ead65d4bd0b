"""An option that has no effect beside another is refused before the command opens anything that it names."""

import pytest
from typer.testing import CliRunner

from civae_cli.app import app

QUESTIONS = "evaluate --data faces --treatment Young --questions theirs"
SCORED = "with --questions: nothing is scored"
LISTED = "with --images: its table lists what is scored"
ROLES = "with runs/young: the roles are those it was trained with"


@pytest.mark.parametrize(
    ("line", "typed", "why"),
    [
        ("evaluate runs/young --treatment Male", "--treatment Male", ROLES),
        ("evaluate runs/young --covariate Male", "--covariate Male", ROLES),
        ("evaluate runs/young --descendant Gray_Hair", "--descendant Gray_Hair", ROLES),
        ("evaluate runs/young -c train.yml", "--config train.yml", ROLES),
        ("evaluate runs/young --images theirs --treatment Male", "--treatment Male", ROLES),
        ("evaluate runs/young --questions theirs --treatment Male", "--treatment Male", ROLES),
        ("evaluate --against runs/young --treatment Male", "--treatment Male", ROLES),
        ("evaluate runs/young --images theirs --limit 6", "--limit 6", LISTED),
        ("evaluate --data faces --treatment Young --images theirs --split test", "--split test", LISTED),
        (f"{QUESTIONS} --images others", "--images others", SCORED),
        (f"{QUESTIONS} --seed 0", "--seed 0", SCORED),
        (f"{QUESTIONS} --scorer auto", "--scorer auto", SCORED),
        (f"{QUESTIONS} --scorer-images 64", "--scorer-images 64", SCORED),
        (f"{QUESTIONS} --extractor none", "--extractor none", SCORED),
        (f"{QUESTIONS} --report page.html", "--report page.html", SCORED),
        (f"{QUESTIONS} --figures figures", "--figures figures", SCORED),
        (
            "evaluate runs/young --scorer none --scorer-images 64",
            "--scorer-images 64",
            "with --scorer none: no scorer is trained",
        ),
        (
            "evaluate runs/young --scorer s.safetensors --scorer-images 64",
            "--scorer-images 64",
            "with --scorer s.safetensors: no scorer is trained",
        ),
        (
            "benchmark bench.yml --out bench --scorer none --scorer-images 64",
            "--scorer-images 64",
            "with --scorer none: no scorer is trained",
        ),
        (
            "effects runs/young --treat Young=0 --from posterior --draws 4",
            "--draws 4",
            "with --from posterior: nothing is drawn from the prior",
        ),
        (
            "effects runs/young --treat Young=0 --from posterior --seed 1",
            "--seed 1",
            "with --from posterior: nothing is drawn from the prior",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(line: str, typed: str, why: str) -> None:
    done = CliRunner().invoke(app, line.split())
    hint = (
        "write the questions first, then score the answers with --images"
        if why == SCORED
        else f"omit {typed.split()[0]}"
    )
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {typed} has no effect {why}\n\nhint: {hint}\n"


@pytest.mark.parametrize(
    "line",
    [
        "evaluate runs/young --data faces --seed 1 --limit 4 --scorer none",
        "effects runs/young --treat Young=0 --from both --draws 4 --seed 1",
        "effects runs/young --treat Young=0 --from posterior",
    ],
)
def test_what_does_something_is_not(line: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert "runs/young: no such run" in done.stderr
