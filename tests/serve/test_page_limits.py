"""What the page refuses: too much, too slow, too often, from elsewhere."""

import asyncio
import io
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from civae_core.errors import DataError
from civae_core.serve.limits import MOST_CLIENTS, Limits, TokenBuckets
from civae_core.serve.sittings import Sitting, Sittings

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from civae_core.serve.studio import Studio

Visit = Callable[..., "TestClient"]

PATIENCE_S = 60
"""How long a busy machine may take for what takes a moment."""


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_uploads_that_are_too_large_are_refused_stated_or_not(visit: Visit, photograph: bytes) -> None:
    client = visit(upload_bytes=len(photograph) - 1)

    def chunks() -> Iterator[bytes]:
        yield photograph[:50]
        yield photograph[50:]

    for content in (photograph, chunks()):
        response = client.post("/api/photos", content=content)
        assert response.status_code == 413 and response.headers["connection"] == "close"
        assert response.json()["error"].startswith("more than ")
    assert visit(upload_bytes=len(photograph)).post("/api/photos", content=photograph).status_code == 200


def test_a_question_is_short(visit: Visit, photograph: bytes) -> None:
    client = visit(question_bytes=100)
    photo = client.post("/api/photos", content=photograph).json()["photo"]
    assert client.post(f"/api/photos/{photo}/answer", content=b" " * 101).status_code == 413
    assert client.post(f"/api/photos/{photo}/answer", content=b"{}" + b" " * 98).status_code == 200


def test_pictures_of_too_many_pixels_and_other_files_are_refused(visit: Visit, photograph: bytes) -> None:
    client = visit(upload_pixels=90 * 120 - 1)
    response = client.post("/api/photos", content=photograph)
    assert response.status_code == 422
    assert response.json()["error"] == "image: 90 x 120 pixels are too many (limit 10,799)"
    assert visit(upload_pixels=90 * 120).post("/api/photos", content=photograph).status_code == 200
    for content, said in ((b"%!PS-Adobe-3.0", "not an image"), (b"", "empty"), (photograph[:300], "damaged")):
        response = (
            client.post("/api/photos", content=content)
            if said != "damaged"
            else visit().post("/api/photos", content=content)
        )
        assert response.status_code == 422 and said in response.json()["error"]


@pytest.mark.parametrize(
    "limits", [{"silence_seconds": 0.05}, {"upload_seconds": 0.1}], ids=["silent", "slow"]
)
def test_slow_uploads_end(make_studio: Callable[..., "Studio"], limits: dict[str, float]) -> None:
    from civae_core.serve.app import make_app

    app = make_app(make_studio(Limits(**limits)))

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02 if "upload_seconds" in limits else 600)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent = upload(app, receive)
    assert sent[0]["status"] == 408 and b"took too long" in sent[1]["body"]


def test_a_visitor_who_leaves_in_the_middle_is_no_error_of_ours(
    make_studio: Callable[..., "Studio"], caplog: pytest.LogCaptureFixture
) -> None:
    from civae_core.serve.app import make_app

    messages = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    with caplog.at_level(logging.WARNING):
        sent = upload(make_app(make_studio(Limits())), receive)
    assert messages == [] and not caplog.records
    assert sent[0]["status"] == 400 and b"the upload broke off" in sent[1]["body"]


def upload(app: Any, receive: Callable[[], Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What an application sends while it receives an upload."""
    return asyncio.run(asyncio.wait_for(posted(app, receive), PATIENCE_S))


async def posted(
    app: Any, receive: Callable[[], Awaitable[dict[str, Any]]], path: str = "/api/photos"
) -> list[dict[str, Any]]:
    """What an application sends to somebody who posts to a path."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8642),
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)
    return sent


def test_who_asks_too_often_waits(visit: Visit) -> None:
    client = visit(burst=3.0, requests_per_second=0.001, look_cost=1.0)
    assert [client.get("/api/page").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = client.get("/api/page")
    assert int(refused.headers["retry-after"]) > 100 and "too many requests" in refused.json()["error"]


def test_an_upload_counts_as_several_questions(visit: Visit, photograph: bytes) -> None:
    client = visit(burst=3.0, requests_per_second=0.001, upload_cost=2.0)
    assert [client.post("/api/photos", content=photograph).status_code for _ in range(2)] == [200, 429]
    assert client.post("/api/examples/0").status_code == 200, "one is left"


def test_buckets_fill_again_and_are_each_clients_own() -> None:
    clock = Clock()
    buckets = TokenBuckets(rate=2.0, burst=4.0, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0.0] * 4
    assert buckets.take("a") == pytest.approx(0.5) and buckets.take("b") == 0.0
    clock.now += 0.5
    assert buckets.take("a") == 0.0 and buckets.take("a") > 0
    clock.now += 1000
    assert [buckets.take("a") == 0.0 for _ in range(5)] == [True] * 4 + [False], "never more than the burst"


def test_buckets_of_strangers_take_no_memory_without_end() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0, clock=Clock())
    for number in range(MOST_CLIENTS + 50):
        buckets.take(str(number))
    assert len(buckets._buckets) == MOST_CLIENTS


@pytest.mark.parametrize(
    ("host", "any_address", "status"),
    [
        ("127.0.0.1:8642", False, 200),
        ("localhost:8642", False, 200),
        ("LOCALHOST", False, 200),
        ("[::1]:8642", False, 200),
        ("evil.example:8642", False, 421),
        ("evil.example", True, 421),
        ("localhost.evil.example", False, 421),
        ("127.0.0.1.evil.example", True, 421),
        ("192.168.1.7:8642", False, 421),
        ("192.168.1.7:8642", True, 200),
        ("", False, 421),
        ("[::1", True, 421),
        ("localhost@evil.example", False, 421),
    ],
)
def test_the_page_answers_to_its_own_names_only(
    visit: Visit, host: str, any_address: bool, status: int
) -> None:
    response = visit(headers={"host": host}, any_address=any_address).get("/")
    assert response.status_code == status
    if status != 200:
        assert response.json()["error"].startswith("this page is not served as")
        assert "--allow-host NAME" in response.json()["hint"]


def test_pages_elsewhere_can_ask_nothing(visit: Visit, photograph: bytes) -> None:
    client = visit()
    for origin in ("http://evil.example", "http://127.0.0.1:9999", "null"):
        response = client.post("/api/photos", content=photograph, headers={"origin": origin})
        assert response.status_code == 403 and "access-control-allow-origin" not in response.headers
    own = client.post("/api/photos", content=photograph, headers={"origin": "http://127.0.0.1:8642"})
    assert own.status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//[x]", "", "\u00e9"])
def test_what_is_no_origin_is_refused_like_a_stranger(
    visit: Visit, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = visit().post("/api/examples/0", headers={"origin": origin.encode("latin-1")})
    assert response.status_code == 403 and not caplog.records


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_refused_requests_are_limited_and_take_nothing_from_the_visitors_own(
    visit: Visit, headers: dict[str, str]
) -> None:
    client = visit(burst=3.0, requests_per_second=0.001)
    statuses = [client.post("/api/examples/0", headers=headers).status_code for _ in range(5)]
    assert statuses[:3] == [403 if "origin" in headers else 421] * 3 and statuses[3:] == [429] * 2
    assert [client.post("/api/examples/0").status_code for _ in range(4)] == [200] * 3 + [429]


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/page", "/nothing", "/api/examples/0.png"])
def test_every_answer_says_what_a_browser_may_do_with_it(visit: Visit, path: str) -> None:
    headers = visit().get(path).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin" and headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/..%2f..%2fpyproject.toml", 404),
        ("GET", "/page/index.html", 404),
        ("GET", "/%2e%2e/app.py", 404),
        ("GET", "/api/examples/3.png", 404),
        ("GET", "/api/examples/-1.png", 404),
        ("POST", "/api/examples/99999999999999999999", 404),
        ("POST", "/api/photos/..%2f..%2fetc/answer", 404),
        ("POST", "/api/photos/unknown/answer", 404),
        ("PUT", "/api/page", 405),
        ("POST", "/api/photos?align=sometimes", 400),
        ("POST", "/api/photos?face=all", 400),
    ],
)
def test_other_paths_lead_nowhere(visit: Visit, method: str, path: str, status: int) -> None:
    response = visit().request(method, path)
    assert response.status_code == status and set(response.json()) == {"error", "hint"}
    assert response.json()["hint"], "what to do instead"


def test_those_who_would_wait_too_long_are_sent_away(visit: Visit) -> None:
    response = visit(waiting=0).post("/api/examples/0")
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert visit(waiting=1).post("/api/examples/0").status_code == 200
    assert visit(uploads_at_once=0).post("/api/photos", content=b"x").status_code == 503


def test_an_upload_takes_a_place_until_it_ends_or_breaks_off(
    make_studio: Callable[..., "Studio"], photograph: bytes
) -> None:
    from civae_core.serve.app import make_app

    app = make_app(make_studio(Limits(uploads_at_once=1, silence_seconds=PATIENCE_S)))

    async def whole() -> dict[str, Any]:
        return {"type": "http.request", "body": photograph}

    async def statuses() -> list[int]:
        begun, leaves = asyncio.Event(), asyncio.Event()

        async def broken_off() -> dict[str, Any]:
            begun.set()
            await leaves.wait()
            return {"type": "http.disconnect"}

        first = asyncio.create_task(posted(app, broken_off))
        await begun.wait()
        meanwhile = await posted(app, whole)
        leaves.set()
        sent = [await first, meanwhile, await posted(app, whole), await posted(app, whole)]
        return [messages[0]["status"] for messages in sent]

    assert asyncio.run(asyncio.wait_for(statuses(), PATIENCE_S)) == [400, 503, 200, 200]


def test_a_question_takes_a_place_until_it_is_answered_or_fails(
    make_studio: Callable[..., "Studio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    from civae_core.serve.app import make_app
    from civae_core.serve.studio import Studio

    app = make_app(make_studio(Limits(waiting=1)))

    async def nothing() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def statuses() -> list[int]:
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def failing(*_: Any) -> dict[str, Any]:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(PATIENCE_S)
            raise DataError("damaged")

        with monkeypatch.context() as patch:
            patch.setattr(Studio, "sit", failing)
            first = asyncio.create_task(posted(app, nothing, "/api/examples/0"))
            await begun.wait()
        try:
            meanwhile = await posted(app, nothing, "/api/examples/0")
        finally:
            go_on.set()
        sent = [await first, meanwhile]
        sent += [await posted(app, nothing, "/api/examples/0") for _ in range(2)]
        return [messages[0]["status"] for messages in sent]

    assert asyncio.run(asyncio.wait_for(statuses(), PATIENCE_S)) == [422, 503, 200, 200]


def test_an_error_of_ours_is_told_without_its_inside(
    visit: Visit, make_studio: Callable[..., "Studio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    from civae_core.serve.studio import Studio

    client = visit()

    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr(Studio, "sit", broken)
        response = client.post("/api/examples/0")
    assert response.status_code == 500 and "internal error" in response.json()["error"]
    assert "secret" not in response.text and "x-frame-options" in response.headers
    assert client.post("/api/examples/0").status_code == 200


def test_photographs_are_forgotten_by_number_size_and_time() -> None:
    clock = Clock()
    sittings = Sittings(Limits(photos=3, photo_bytes=100, photo_seconds=60), clock)
    first, second, third = (sittings.add(Sitting(b"x" * 10)) for _ in range(3))
    assert len({first, second, third}) == 3 and min(map(len, (first, second, third))) >= 20
    assert sittings.get(first) is not None, "asked about last"
    sittings.add(Sitting())
    assert sittings.get(second) is None and sittings.get(first) is not None and len(sittings) == 3
    large = sittings.add(Sitting(b"x" * 95))
    assert sittings.get(first) is None and sittings.get(third) is None and sittings.get(large) is not None
    clock.now += 61
    assert sittings.get(large) is None and len(sittings) == 0


def test_the_photograph_just_given_stays_however_large() -> None:
    sittings = Sittings(Limits(photo_bytes=100))
    assert sittings.get(sittings.add(Sitting(b"x" * 101))) is not None


def test_it_is_known_when_the_next_photograph_expires() -> None:
    clock = Clock()
    sittings = Sittings(Limits(photo_seconds=60), clock)
    assert sittings.forget_expired() == 60
    first = sittings.add(Sitting())
    clock.now += 20
    sittings.add(Sitting())
    assert sittings.forget_expired() == 40
    sittings.get(first)
    assert sittings.forget_expired() == 60
    clock.now += 50
    sittings.get(first)
    clock.now += 10
    assert sittings.forget_expired() == 50 and len(sittings) == 1


def test_formats_that_start_other_programs_are_not_read(visit: Visit) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    assert visit().post("/api/photos", content=buffer.getvalue()).status_code == 422
