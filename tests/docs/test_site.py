"""The documentation site: it builds without a warning, so no link is broken, and its reference is the code's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))

import reference  # noqa: E402
from civae_core.config.schema import Config  # noqa: E402
from civae_core.evaluation.measures import SECTIONS  # noqa: E402


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E", str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason="needs the extra docs: pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    run = build(DOCS, out)
    assert run.returncode == 0, run.stderr
    return out


def test_every_page_is_built_and_can_be_reached(site: Path) -> None:
    pages = {path.stem for path in DOCS.glob("*.md")}
    shown = (site / "index.html").read_text(encoding="utf-8")
    assert {name for name in pages if not (site / f"{name}.html").is_file()} == set()
    assert {name for name in pages - {"index"} if f'href="{name}.html"' not in shown} == set(), (
        "in the navigation"
    )


def test_the_reference_is_in_the_site(site: Path) -> None:
    for page, text in {
        "commands": "--truncation",
        "config": "train.ema_halflife",
        "measures": "ate_error",
    }.items():
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        assert text in html and "generated:" not in html
    assert "<td" in (site / "commands.html").read_text(encoding="utf-8"), "tables are tables"


def test_a_broken_link_fails_the_build(site: Path, tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# Title\n\n[somewhere](nowhere.md)\n", encoding="utf-8")
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser']\n", encoding="utf-8")
    run = build(tmp_path, tmp_path / "out")
    assert run.returncode != 0 and "nowhere.md" in run.stderr


def test_every_command_with_its_options_is_described() -> None:
    text = reference.commands()
    for name in ("counterfactual", "prepare-data", "config convert"):
        assert f"\n## civae {name}\n" in f"\n{text}"
    section = text.partition("## civae counterfactual")[2].partition("\n## ")[0]
    assert "| `--treat NAME=VALUE` | Intervention: NAME=VALUE, NAME=flip" in section
    assert "civae counterfactual photo.jpg --treat Young=flip --native" in section
    assert "| What is asked |" in section and "| Computing |" in section


def test_every_key_of_the_config_is_described() -> None:
    text = reference.config()
    for name, section in Config.model_fields.items():
        if hasattr(section.annotation, "model_fields"):
            for key, field in section.annotation.model_fields.items():
                assert f"| `{name}.{key}` |" in text
                assert field.description, key
    assert "| `model.norm` | `group`, `batch`, `none` | `group` |" in text
    assert "| `train.grad_clip` | number > 0 | `1.0` |" in text
    assert "| `data.path` | string | required |" in text


def test_every_measure_is_described() -> None:
    text = reference.measures()
    for section in SECTIONS:
        assert f"## {section.title}" in text
        assert all(f"`{'.'.join(measure.path)}`" in text for measure in section.measures)


def test_text_keeps_its_characters_in_markdown() -> None:
    assert reference._cell("p(z|x) of *this*, <b>, `a*b`") == r"p(z|x) of \*this\*, \<b\>, `a*b`"
    table = reference._table(("a",), [("x|y",)])
    assert re.search(r"\| x\\\|y \|", table)


def test_an_unknown_mark_is_an_error() -> None:
    with pytest.raises(KeyError):
        reference.filled("<!-- generated: nonsense -->")
