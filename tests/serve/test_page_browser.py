"""The page in a real browser, Chromium without a window: upload, slider, comparison, download, errors."""

import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from civae_core.serve.sittings import Sitting
    from civae_core.serve.studio import Studio

PATIENCE_S = 60
"""How long a busy machine may take for what takes a moment."""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def url(make_studio: Callable[..., "Studio"]) -> Iterator[str]:
    from civae_core.serve.app import make_app
    from civae_core.serve.server import listen, server_of, url_of

    studio = make_studio()
    listening = listen("127.0.0.1", 0)
    server = server_of(make_app(studio), studio.limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield url_of("127.0.0.1", listening)
    server.should_exit = True
    thread.join(PATIENCE_S)


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    """The page at the width of a phone, in dark mode; messages of its scripts end the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=flags)
        opened = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        opened.set_default_timeout(1_000 * PATIENCE_S)
        playwright.expect.set_options(timeout=1_000 * PATIENCE_S)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        opened.goto(url)
        opened.wait_for_selector("body[data-ready]")
        yield opened
        browser.close()
    assert complaints == []


@pytest.fixture
def two_faces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every photograph has two faces; the list fills with those that are asked for."""
    from civae_core.serve import studio

    asked: list[str] = []

    def sit(_: "Studio", sitting: "Sitting") -> dict[str, Any]:
        asked.append(sitting.face)
        return {"faces": 2, "aligned": True, "native": True}

    monkeypatch.setattr(studio, "finds_faces", lambda: True)
    monkeypatch.setattr(studio, "aligner_for", lambda *_: None)
    monkeypatch.setattr(studio.Studio, "sit", sit)
    return asked


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_photo_is_changed_compared_and_downloaded(page: Any, photograph: bytes) -> None:
    from playwright.sync_api import expect

    status, counterfactual = page.locator("#status"), page.locator("img.counterfactual").first
    page.set_input_files("#file", {"name": "me.png", "mimeType": "image/png", "buffer": photograph})
    expect(status).to_contain_text("Nothing changed; the same pixels as the original.")
    assert counterfactual.get_attribute("src") == page.locator("img.original").get_attribute("src")
    expect(page.get_by_label("Male").locator("option").first).to_contain_text("% sure")
    expect(page.locator(".notes")).to_contain_text("this picture: unsure of")
    expect(page.locator("#darker")).to_contain_text(re.compile(r"^darker by [\d.]+ %$"))

    # Everything by keyboard: from wherever Young was read to be, to the slider's left end, beyond training.
    slider = page.get_by_role("slider", name="Young")
    slider.focus()
    page.keyboard.press("Home")
    expect(status).to_contain_text("Young: −0.5 instead of")
    expect(slider).to_have_attribute("aria-valuetext", "−0.5, extrapolated")
    expect(page.locator(".notes")).to_contain_text("Young set beyond what training saw")
    beyond = counterfactual.get_attribute("src")
    for _ in range(25):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "no")
    expect(status).to_contain_text("Young: no")
    expect(page.locator(".notes")).not_to_contain_text("beyond training")
    assert counterfactual.get_attribute("src") != beyond

    page.locator("#attr-Young").select_option("0")
    expect(status).to_have_text("Young: no, as it is; the same pixels as the original.")

    # A correction is what the pictures then rest on.
    page.locator("#attr-Young").select_option("1")
    expect(status).to_contain_text("Young: no instead of yes")

    page.get_by_label("Compare with").select_option(label="other")
    expect(page.locator("article.answer")).to_have_count(2)
    expect(page.locator("#attr-Young")).to_have_value("1")
    other = page.get_by_role("article", name="other")
    expect(other.locator("img.effect")).to_have_attribute("src", re.compile("^data:image/png"))
    assert other.locator("img.counterfactual").get_attribute("src") != counterfactual.get_attribute("src")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0, "nothing is wider than a phone"

    with page.expect_download() as small:
        page.get_by_role("button", name="Download PNG").click()
    assert small.value.suggested_filename == "me__Young=0.png"
    with page.expect_download() as large:
        page.get_by_role("button", name="Download in the photo's size").click()
    assert pixels(small.value.path().read_bytes()).shape == (32, 32, 3)
    assert pixels(large.value.path().read_bytes()).shape == (120, 90, 3)

    page.get_by_role("button", name="Change nothing").click()
    expect(status).to_contain_text("Nothing changed; the same pixels as the original.")
    expect(slider).to_have_attribute("aria-valuetext", "yes")

    dose = '{ name: "Age", kind: "continuous", low: 18, high: 85, from: -15, to: 118 }'
    page.evaluate(f"document.body.append(slider({dose})); showSlider({dose}, 100)")
    age = page.get_by_role("slider", name="Age")
    expect(age).to_have_attribute("aria-valuetext", "100, answered as 85")
    expect(page.locator("#treat-Age-note")).to_contain_text("the rest is answered as at the nearer end of it")


def test_of_a_photo_chosen_while_another_is_read_only_the_last_is_kept(page: Any, photograph: bytes) -> None:
    from playwright.sync_api import expect

    held: list[Any] = []
    page.route("**/api/photos?*", lambda route: held.append(route), times=1)
    file = {"mimeType": "image/png", "buffer": photograph}
    with page.expect_request("**/api/photos?*"):
        page.set_input_files("#file", {"name": "first.png", **file})
    page.set_input_files("#file", {"name": "second.png", **file})
    expect(page.locator("#status")).to_contain_text("Nothing changed")
    with (
        page.expect_request(lambda request: request.method == "DELETE") as let_go,
        page.expect_response("**/api/photos?*") as late,
    ):
        held[0].continue_()
    assert let_go.value.url.endswith("/api/photos/" + late.value.json()["photo"])
    page.get_by_label("Compare with").select_option(label="other")
    expect(page.locator("article.answer")).to_have_count(2)


def test_the_choice_of_a_face_is_that_of_the_photo_shown(
    two_faces: list[str], page: Any, photograph: bytes
) -> None:
    from playwright.sync_api import expect

    file, face = {"mimeType": "image/png", "buffer": photograph}, page.get_by_label("Which")
    page.set_input_files("#file", {"name": "first.png", **file})
    expect(face).to_have_value("largest")
    with page.expect_response("**/api/photos?*face=2"):
        face.select_option(label="2 from the left")
    expect(face).to_have_value("2")
    page.set_input_files("#file", {"name": "second.png", **file})
    expect(face).to_be_visible()
    expect(face).to_have_value("largest")
    assert two_faces == ["largest", "2", "largest"]


def test_of_a_photo_that_is_too_large_nothing_is_shown_or_kept(page: Any, photograph: bytes) -> None:
    from playwright.sync_api import expect

    file = {"name": "me.png", "mimeType": "image/png", "buffer": photograph}
    page.set_input_files("#file", file)
    expect(page.locator("#status")).to_contain_text("Nothing changed")
    page.evaluate("state.page.upload_bytes = 10")
    page.set_input_files("#file", file | {"name": "large.png"})
    expect(page.get_by_role("alert")).to_contain_text("large.png is larger than the 0 MB")
    expect(page.locator("#change")).to_be_hidden()
    expect(page.locator("article.answer")).to_have_count(0)
    assert page.evaluate("state.photo") is None


def test_what_is_wrong_is_one_sentence_and_the_page_goes_on(page: Any, photograph: bytes) -> None:
    from playwright.sync_api import expect

    alert = page.get_by_role("alert")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a picture"})
    expect(alert).to_have_text("image: not an image; use JPEG, PNG, WebP, TIFF, BMP or GIF")
    expect(page.locator("#change")).to_be_hidden()
    page.get_by_role("button", name="Example 2").press("Enter")
    expect(page.locator("#status")).to_contain_text("Nothing changed")
    expect(alert).to_be_hidden()
    expect(page.get_by_role("button", name="Download in the photo's size")).to_be_hidden()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert dark != page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
