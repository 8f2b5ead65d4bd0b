"""The documentation site: `sphinx-build -W --keep-going -n docs site`, with the extra `docs`.

Markdown pages are read as they stand, so they also read well where the repository is browsed. Where a reference page
has a comment `<!-- generated: NAME -->`, what `reference.py` says of the code is put in its place.
"""

import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import reference  # noqa: E402
from civae_core import __version__  # noqa: E402

project, author, copyright = "civae", "the authors of civae", "the authors of civae, MIT licence"
version = release = __version__
language = "en_GB"

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["**/README.md"]

html_theme = "furo"
html_title = "civae"
html_show_sphinx = False
html_copy_source = False
html_static_path, html_css_files = ["static"], ["site.css"]
pygments_style, pygments_dark_style = "friendly", "monokai"


def _fill(app: Any, page: str, source: list[str]) -> None:
    if page == root_doc:
        # The * stands for the pages that are not named: a new one is in the navigation without being told to.
        named = set(re.findall(r"^[\w-]+$", source[0], re.M)) | {page}
        others = sorted({path.stem for path in Path(app.srcdir).glob("*.md")} - named)
        source[0] = re.sub(r"^\*\n", "".join(f"{name}\n" for name in others), source[0], flags=re.M)
    source[0] = reference.filled(source[0])


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
