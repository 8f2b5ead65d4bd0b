"""HTML pages for people: one self-contained file each, with its pictures inside."""

import functools
from pathlib import Path
from typing import Any

import jinja2

_SHARED = Path(__file__).parent


def render_page(template: Path, **values: Any) -> str:
    """Fill in a template; everything it prints is escaped, and a name without a value is an error.

    Args:
        template: a file, which may extend `page.html.j2` and import from `numbers.html.j2` of this folder.
        values: values of the names in the template.
    """
    return _environment(template.parent).get_template(template.name).render(values)


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
