"""What the page answers: the same pictures as the command, abducted once, for one model or two."""

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from civae_core.data.images import Preprocessing, decode
from civae_core.errors import DataError
from civae_core.inference.edit import edit_pictures
from civae_core.inference.pictures import Picture
from civae_core.inference.torch_engine import TorchEngine

if TYPE_CHECKING:
    from starlette.testclient import TestClient

Engines = tuple[TorchEngine, TorchEngine]
Visit = Callable[..., "TestClient"]


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)


def inlined(url: str) -> np.ndarray:
    kind, _, text = url.partition(",")
    assert kind == "data:image/png;base64"
    return pixels(base64.b64decode(text))


def give(client: "TestClient", photograph: bytes) -> str:
    response = client.post("/api/photos", content=photograph)
    assert response.status_code == 200, response.text
    name: str = response.json()["photo"]
    return name


def ask(client: "TestClient", photo: str, **question: Any) -> dict[str, Any]:
    response = client.post(f"/api/photos/{photo}/answer", json=question)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_the_page_is_told_of_models_sliders_and_examples(visit: Visit) -> None:
    page = visit().get("/api/page").json()
    assert [model["name"] for model in page["models"]] == ["ours", "other"] and page["examples"] == 3
    (young,) = page["models"][0]["treatments"]
    assert young == {"name": "Young", "kind": "binary", "low": 0, "high": 1, "from": -0.5, "to": 1.5}
    skin = page["models"][0]["covariates"][1]
    assert skin["name"] == "Skin_Tone" and skin["from"] < skin["low"] < skin["high"] < skin["to"]


def test_answers_are_those_of_the_command(visit: Visit, engines: Engines, photograph: bytes) -> None:
    client = visit()
    photo = give(client, photograph)
    picture = Picture("image", "image", decode(photograph, Preprocessing.from_dict(engines[0].preprocessing)))
    for number, engine in enumerate(engines):
        (answer,) = ask(
            client, photo, models=[number], treat={"Young": 0.25}, attr={"Male": 1, "Young": 1}, noise=0.5
        )["answers"]
        stated = {"Male": 1.0, "Young": 1.0}
        (wanted,) = edit_pictures(engine, [picture], [{"Young": 0.25}], stated=stated, noise=0.5)
        assert not isinstance(wanted, DataError)
        assert np.array_equal(inlined(answer["image"]), wanted.edits[0].image_CHW)
        assert np.array_equal(inlined(answer["original"]), picture.pixels_CHW)
        assert answer["factual"] == wanted.factual and answer["predicted"] == wanted.predicted
        assert list(answer["predicted"]) == ["Skin_Tone"]


def test_nothing_changed_is_the_original_and_without_noise_the_reconstruction(
    visit: Visit, photograph: bytes
) -> None:
    client = visit()
    photo = give(client, photograph)
    (kept,) = ask(client, photo)["answers"]
    assert np.array_equal(inlined(kept["image"]), inlined(kept["original"]))
    assert kept["largest_difference"] == kept["mean_difference"] == 0
    assert (inlined(kept["effect"]) == 255).all(), "no effect is white"
    (plain,) = ask(client, photo, noise=0.0)["answers"]
    difference = np.abs(inlined(plain["image"]).astype(int) - inlined(plain["original"]))
    assert plain["largest_difference"] == difference.max() > 0
    assert plain["mean_difference"] == pytest.approx(difference.mean(), abs=0.006)
    assert plain["effect"] == kept["effect"], (
        "the map shows what the treatment does, not what the noise hides"
    )


def test_a_photograph_is_abducted_once_for_each_set_of_stated_attributes(
    visit: Visit, engines: Engines, photograph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"abduct": 0, "predict": 0, "guess": 0}

    def counted(name: str) -> None:
        really = getattr(engines[0], name)

        def call(*args: Any, **more: Any) -> Any:
            counts[name] += 1
            return really(*args, **more)

        monkeypatch.setattr(engines[0], name, call)

    for name in counts:
        counted(name)
    client = visit()
    photo = give(client, photograph)
    assert counts["abduct"] == 0, "nobody asked yet"
    ask(client, photo, attr={"Male": 1, "Skin_Tone": 0.5, "Young": 0}, treat={"Young": 0.5})
    assert counts["abduct"] == 1
    before = counts["predict"]
    for step in range(5):
        ask(client, photo, attr={"Young": 0, "Male": 1, "Skin_Tone": 0.5}, treat={"Young": step / 5})
    assert (counts["abduct"], counts["predict"] - before, counts["guess"]) == (1, 5, 0)
    ask(client, photo, attr={"Male": 0, "Skin_Tone": 0.5, "Young": 0})
    assert counts["abduct"] == 2
    ask(client, photo, attr={"Male": 1, "Skin_Tone": 0.5, "Young": 0})
    assert counts["abduct"] == 2, "the first one is still known"


def test_two_models_are_compared_under_one_scale(visit: Visit, photograph: bytes) -> None:
    client = visit()
    photo = give(client, photograph)
    question: dict[str, Any] = {"treat": {"Young": 0}, "attr": {"Young": 1, "Male": 0, "Skin_Tone": 0.5}}
    both = ask(client, photo, models=[0, 1], **question)
    alone = [ask(client, photo, models=[number], **question) for number in (0, 1)]
    assert [answer["model"] for answer in both["answers"]] == [0, 1]
    assert both["limit"] == max(found["limit"] for found in alone)
    for answer, found in zip(both["answers"], alone, strict=True):
        assert answer["image"] == found["answers"][0]["image"]
        assert (answer["effect"] == found["answers"][0]["effect"]) == (found["limit"] == both["limit"])
    assert both["answers"][0]["image"] != both["answers"][1]["image"]


def test_extrapolation_is_said(visit: Visit, photograph: bytes) -> None:
    client = visit()
    photo = give(client, photograph)
    (inside,) = ask(client, photo, treat={"Young": 1}, attr={"Young": 0, "Male": 1, "Skin_Tone": 0.5})[
        "answers"
    ]
    (beyond,) = ask(client, photo, treat={"Young": 1.4}, attr={"Young": 0, "Male": 3, "Skin_Tone": 0.5})[
        "answers"
    ]
    assert inside["beyond"] == [] and inside["notes"] == []
    assert beyond["beyond"] == ["Young"]
    assert any("Young set beyond what training saw" in note for note in beyond["notes"])
    assert any("Male=3 (training saw 0 to 1)" in note for note in beyond["notes"])


def test_an_example_comes_with_what_is_known_of_it(visit: Visit, examples: list[Picture]) -> None:
    client = visit()
    found = client.post("/api/examples/2").json()
    assert found["native"] is False
    (answer,) = ask(client, found["photo"], attr={"Male": 0.5})["answers"]
    assert np.array_equal(inlined(answer["original"]), examples[2].pixels_CHW)
    assert answer["predicted"] == {} and answer["factual"]["Male"] == 0.5
    assert answer["factual"]["Young"] == examples[2].known["Young"]
    shown = client.get("/api/examples/2.png")
    assert np.array_equal(pixels(shown.content), examples[2].pixels_CHW)
    refused = client.post(f"/api/photos/{found['photo']}/download", json={"native": True})
    assert refused.status_code == 400, refused.text
    assert "prepared data" in refused.json()["error"]


def test_downloads_say_what_they_are_and_keep_the_photographs_size(visit: Visit, photograph: bytes) -> None:
    client = visit()
    photo = give(client, photograph)
    question: dict[str, Any] = {
        "treat": {"Young": 0},
        "attr": {"Young": 1, "Male": 1, "Skin_Tone": 0.5},
        "noise": 0.5,
    }
    (answer,) = ask(client, photo, **question)["answers"]
    small = client.post(f"/api/photos/{photo}/download", json=question).content
    assert np.array_equal(pixels(small), inlined(answer["image"]))
    text = (
        "Counterfactual estimated by civae: Young=0 instead of Young=1, noise=0.5, within what training saw; "
        "not a photograph"
    )
    assert Image.open(io.BytesIO(small)).info["Description"] == text
    large = client.post(f"/api/photos/{photo}/download", json=question | {"native": True}).content
    assert pixels(large).shape == (3, 120, 90)
    assert Image.open(io.BytesIO(large)).info["Description"] == text
    assert not np.array_equal(pixels(large), pixels(photograph))
    null = client.post(f"/api/photos/{photo}/download", json={"native": True}).content
    assert np.array_equal(pixels(null), pixels(photograph))


def test_a_photograph_can_be_forgotten(visit: Visit, photograph: bytes) -> None:
    client = visit()
    photo = give(client, photograph)
    client.delete(f"/api/photos/{photo}")
    gone = client.post(f"/api/photos/{photo}/answer", json={})
    assert gone.status_code == 404 and "no longer kept" in gone.json()["error"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (b'{"treat": {"Yuong": 1}}', "did you mean Young?"),
        (b'{"treat": {"Male": 1}}', "unknown attribute 'Male'"),
        (b'{"attr": {"Gray_Hair": 1}}', "unknown attribute"),
        (b'{"noise": 1.5}', "noise: "),
        (b'{"treat": {"Young": 1e999}}', "treat.Young: "),
        (b'{"treat": {"Young": NaN}}', "treat.Young: "),
        (b'{"treat": {"Young": 1e300}}', "treat.Young: "),
        (b'{"treat": {"Young": 1e30}}', "the model gives no finite image"),
        (b'{"treat": {"Young": "0"}}', "treat.Young: "),
        (b'{"models": [7]}', "there is no model 7"),
        (b'{"models": [-1]}', "models.0: "),
        (b'{"models": [0, 1, 0]}', "models: "),
        (b'{"native": 1}', "native: "),
        (b'{"path": "/etc/passwd"}', "path: "),
        (b'{"noise": 1, "noise": 0}', "appears twice"),
        (b"[" * 9000, "nested too deeply"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_questions_that_make_no_sense_are_refused_in_a_sentence(
    visit: Visit, photograph: bytes, question: bytes, said: str
) -> None:
    client = visit()
    photo = give(client, photograph)
    response = client.post(f"/api/photos/{photo}/answer", content=question)
    assert response.status_code == 400
    assert said in response.json()["error"] and "\n" not in response.json()["error"]
