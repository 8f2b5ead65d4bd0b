"""prepare-data killed while it claims or replaces a folder: the same command continues, and no old part survives."""

import importlib
import json
from pathlib import Path

import pytest

from civae_core.data import PreparedData
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import Source
from civae_core.data.sources.faces import faces_source
from civae_core.errors import UsageError
from civae_core.file_names import MANIFEST, PARTIAL

NO_BAD = MaxBad("0", count=0)
MOST_DELETIONS = 30
prepare_module = importlib.import_module("civae_core.data.prepare")


class EndedError(BaseException):
    """Like a kill: nothing in the code catches it."""


def faces(seed: int) -> Source:
    return faces_source(count=64, seed=seed, overlap=0.5, truths=[], size=32, channels=3)


def end_before_deletion(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    count, real = [0], Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and not path.name.startswith(".civae-lock"):
            count[0] += 1
            if count[0] == number:
                raise EndedError
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)


def test_replacing_can_end_before_any_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "write_report", lambda *_: None)  # pictures take longer than all else
    new = prepare(faces(2), tmp_path / "new", workers=1, max_bad=NO_BAD).data.fingerprint
    ended = 0
    for number in range(1, MOST_DELETIONS):
        out = tmp_path / str(number)
        old = prepare(faces(1), out, workers=1, max_bad=NO_BAD).data.fingerprint
        with monkeypatch.context() as patched:
            end_before_deletion(patched, number)
            try:
                prepare(faces(2), out, workers=1, max_bad=NO_BAD, overwrite=True)
                break  # fewer deletions than that
            except EndedError:
                ended += 1
        if (out / MANIFEST).exists():
            assert PreparedData.open(out).fingerprint in (old, new)
        else:
            plan = json.loads((out / PARTIAL / "plan.json").read_text())
            if plan["preparation"] is None:
                with pytest.raises(UsageError, match="another, unfinished preparation"):
                    prepare(faces(2), out, workers=1, max_bad=NO_BAD)
        again = prepare(faces(2), out, workers=1, max_bad=NO_BAD, overwrite=True)
        assert again.data.fingerprint == new
        assert not (out / PARTIAL).exists()
    assert ended >= 5, "manifest, images, attributes, and what is left of chunks and of the plan"


def test_a_folder_that_was_claimed_but_not_planned_is_ours(tmp_path: Path) -> None:
    partial = tmp_path / "out" / PARTIAL
    partial.mkdir(parents=True)
    (partial / ".plan.json.abc.tmp").write_text("{")
    assert prepare(faces(1), tmp_path / "out", workers=1, max_bad=NO_BAD).fresh
    (tmp_path / "other" / PARTIAL).mkdir(parents=True)
    (tmp_path / "other" / PARTIAL / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not written by prepare-data"):
        prepare(faces(1), tmp_path / "other", workers=1, max_bad=NO_BAD)
