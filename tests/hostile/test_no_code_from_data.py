"""No code is made of data: no call in the sources that could, and HTML that shows names instead of running them."""

import re
from pathlib import Path

import pytest

import civae_core
from civae_core.figures.pages import render_page

ROOT = Path(civae_core.__file__).parents[1]
FOLDERS = [ROOT / name for name in ("civae_core", "civae_cli", "benchmarks", "docs")]
SOURCES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
TEMPLATES = sorted(path for folder in FOLDERS for path in folder.rglob("*.j2"))
PAGES = sorted(path for folder in FOLDERS[:2] for kind in ("*.html", "*.js") for path in folder.rglob(kind))

FORBIDDEN = {
    "unpickling": r"^\s*(import|from) (c?pickle|dill|joblib|shelve|marshal|cloudpickle)\b",
    "torch.load of code": r"torch\.load\((?!.*weights_only=True)|torch\.jit\.load|torch\.hub\.(?!get_dir\b)",
    "arrays of objects": r"\ballow_pickle\s*=\s*True",
    "YAML of objects": r"yaml\.(unsafe_|full_)?load(_all)?\((?!.*Loader=BoundedLoader)|yaml\.(Unsafe|Full)?Loader\b",
    "evaluation": r"(?<![\w.])(eval|exec|compile|__import__)\(",
    "a shell": r"\bos\.(system|popen)\(|shell\s*=\s*True",
    "unpacking to paths that an archive names": r"\.extract(all)?\(|shutil\.unpack_archive",
}
IN_PAGES = (
    r"(inner|outer)HTML|insertAdjacentHTML|document\.write|createContextualFragment|srcdoc|javascript:"
    r"|\beval\(|\bFunction\(|set(Timeout|Interval)\(\s*['\"`]|\son\w+\s*=\s*['\"]|<script(?![^>]*\bsrc=)"
)
"""Markup or code made of text, and code that a policy of `script-src 'self'` would have to let in."""


@pytest.mark.parametrize("danger", FORBIDDEN)
def test_no_source_makes_code_or_paths_of_data(danger: str) -> None:
    pattern = re.compile(FORBIDDEN[danger], re.MULTILINE)
    assert len(SOURCES) > 150
    found = {
        str(path.relative_to(ROOT)): pattern.findall(path.read_text(encoding="utf-8")) for path in SOURCES
    }
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    ("danger", "line"),
    [
        ("unpickling", "    import pickle"),
        ("torch.load of code", "state = torch.load(path)"),
        ("arrays of objects", "np.load(path, allow_pickle=True)"),
        ("YAML of objects", "yaml.load(text, Loader=yaml.Loader)"),
        ("YAML of objects", "yaml.unsafe_load(text)"),
        ("evaluation", "x = eval(text)"),
        ("a shell", "subprocess.run(text, shell=True)"),
        ("unpacking to paths that an archive names", "archive.extractall(out)"),
    ],
)
def test_the_search_would_find_them(danger: str, line: str) -> None:
    assert re.search(FORBIDDEN[danger], line, re.MULTILINE)


def test_no_template_turns_escaping_off() -> None:
    assert len(TEMPLATES) >= 3
    off = re.compile(r"\|\s*safe\b|autoescape\s+false", re.IGNORECASE)
    assert [path.name for path in TEMPLATES if off.search(path.read_text(encoding="utf-8"))] == []


def test_no_page_makes_markup_or_code_of_text() -> None:
    assert {path.suffix for path in PAGES} == {".html", ".js"}
    found = {path.name: re.findall(IN_PAGES, path.read_text(encoding="utf-8")) for path in PAGES}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    "line",
    [
        "box.innerHTML = name",
        "setTimeout('go()', 9)",
        "new Function(text)",
        '<img src="x" onerror="go()">',
        "<script>go()</script>",
    ],
)
def test_the_search_of_pages_would_find_them(line: str) -> None:
    assert re.search(IN_PAGES, line)


def test_unescaped_markup_is_made_of_our_own_figures_only() -> None:
    uses = {str(path.relative_to(ROOT)) for path in SOURCES if "Markup(" in path.read_text(encoding="utf-8")}
    assert uses == {"civae_core/benchmark/report.py"}, "look at each new one"


def test_what_a_page_prints_is_escaped(tmp_path: Path) -> None:
    template = tmp_path / "page.j2"
    template.write_text('<p title="{{ name }}">{{ name }}</p>')
    page = render_page(template, name='"><script>alert(1)</script>{{7*7}}')
    assert "<script>" not in page and '""' not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}") == 2
