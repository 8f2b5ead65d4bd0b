"""Pages: everything printed is escaped, nothing may be left out, pictures are inside."""

import base64
import io
from pathlib import Path

import jinja2
import pytest
from PIL import Image

from civae_core.figures.pages import render_page
from civae_core.figures.pictures import inlined


def written(folder: Path, content: str) -> Path:
    template = folder / "some.html.j2"
    text = '{% extends "page.html.j2" %}{% import "numbers.html.j2" as numbers %}{% block content %}'
    template.write_text(f"{text}{content}{{% endblock %}}")
    return template


def test_what_is_printed_is_escaped_in_tables_too(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    cell = {"text": hostile, "small": [hostile], "best": True}
    row = {"title": hostile, "better": hostile, "cells": [cell]}
    page = render_page(
        written(tmp_path, "{{ name }}{{ numbers.table(methods, [row]) }}{{ numbers.definitions(words) }}"),
        name=hostile,
        methods=[{"name": hostile, "meaning": hostile}],
        row=row,
        words=[{"title": hostile, "meaning": hostile}],
    )
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<script" not in page and page.count("&lt;script&gt;") == 9
    assert '<td class="best">' in page


def test_a_name_that_is_not_given_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        render_page(written(tmp_path, "{{ missing }}"))


def test_a_picture_comes_out_of_its_address_as_it_went_in() -> None:
    kind, _, data = inlined(Image.new("RGB", (3, 2), (1, 2, 3))).partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == (3, 2) and picture.getpixel((2, 1)) == (1, 2, 3)
