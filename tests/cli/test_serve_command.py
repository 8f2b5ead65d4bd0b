"""civae serve before there is anything to show; its page is tested in tests/serve."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.extras import missing


@pytest.mark.skipif(bool(missing("serve")), reason="the extra `serve` is not installed")
def test_without_a_run_it_is_told_how_serve_is_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIVAE_MODEL", raising=False)
    done = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert (done.exit_code, done.stdout) == (2, "")
    error, hint = done.stderr.split("\n\nhint: ")
    assert error == "error: RUN is not given, $CIVAE_MODEL is not set and runs/ contains no trained run"
    assert hint == "name a run, as in `civae serve runs/young`, or train one with `civae train`\n"
