"""Photographs: the same bits in any batch, and interventions that touch only what they cause."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from civae_core.synthetic import FaceProcess, Subjects, canvas
from civae_core.synthetic.look import Look, look_of
from civae_core.synthetic.renderer import draw, expose

SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: planes this small gain nothing from more, and lose much on a busy machine."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def people() -> Subjects:
    return FaceProcess(seed=5).subjects(0, 40, randomised=True)


@pytest.fixture(scope="module")
def photos(people: Subjects) -> torch.Tensor:
    return FaceProcess(size=SIZE).render(people)


def look(people: Subjects) -> Look:
    return look_of(people.noise_NK, people.roots, people.levels)


def render(people: Subjects) -> torch.Tensor:
    return FaceProcess(size=SIZE).render(people)


def coloured_by(people: Subjects, *names: str) -> torch.Tensor:
    """Pixels [N, S, S] that depend on any of these colours."""
    usual = look(people)
    colours = {name: 0.5 * value + 0.3 if name in names else value for name, value in usual.colour.items()}
    return (draw(usual, SIZE) != draw(replace(usual, colour=colours), SIZE)).any(dim=1)


def changed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first != second).any(dim=1)


@pytest.mark.parametrize("size", [32, 50, 128])
def test_any_size_gives_coloured_bytes(people: Subjects, size: int) -> None:
    some = FaceProcess(size=size).render(people[:8])
    assert some.dtype == torch.uint8
    assert some.shape == (8, 3, size, size)
    assert (some.float().std(dim=(1, 2, 3)) > 20).all()


def test_rendering_stays_on_the_subjects_device(people: Subjects) -> None:
    # The meta device computes shapes only, and refuses any tensor from elsewhere.
    elsewhere = render(people[:2].to("meta"))
    assert elsewhere.device.type == "meta"
    assert elsewhere.shape == (2, 3, SIZE, SIZE)


def test_size_changes_the_sampling_only(people: Subjects) -> None:
    small, large = draw(look(people), 64), draw(look(people), 128)
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.012


@pytest.mark.parametrize("size", [32, 64])
def test_alone_and_in_a_batch_are_the_same_bits(size: int) -> None:
    process = FaceProcess(seed=1, size=size)
    together = process.render(process.subjects(0, 100))
    assert torch.equal(together, process.render(process.subjects(0, 100)))
    for number in (0, 1, 31, 32, 63, 99):
        assert torch.equal(process.render(process.subjects(number, 1))[0], together[number])
    assert torch.equal(process.render(process.subjects(40, 37)), together[40:77])


def test_windows_cut_nothing_off(people: Subjects, monkeypatch: pytest.MonkeyPatch) -> None:
    extreme = people.under({"Smiling": 1.5, "Young": -1.0, "Eyeglasses": 1.0})
    for crowd in (people, extreme):
        usual = draw(look(crowd), SIZE)
        with monkeypatch.context() as patch:
            patch.setattr(canvas, "pixel_range", lambda low, high, size: slice(0, size))
            assert torch.equal(draw(look(crowd), SIZE), usual)


def test_setting_what_is_already_so_changes_nothing(people: Subjects, photos: torch.Tensor) -> None:
    for name, value in people.roots.items():
        assert torch.equal(render(people.under({name: value})), photos), name


def test_age_shows_on_everybody(people: Subjects, photos: torch.Tensor) -> None:
    aged = render(people.under({"Young": "flip"}))
    difference = (aged.float() - photos.float()).abs().mean(dim=(1, 2, 3))
    assert difference.min() > 1.0
    assert difference.median() > 4.0
    half = render(people.under({"Young": 0.5}))
    assert changed(half, photos).any(dim=(1, 2)).all()
    assert changed(half, aged).any(dim=(1, 2)).all()


def test_age_leaves_backdrop_clothes_eyes_and_mouth_to_the_bit(
    people: Subjects, photos: torch.Tensor
) -> None:
    aged = render(people.under({"Young": "flip"}))
    moved = changed(aged, photos)
    can_move = torch.zeros_like(moved)
    for dose in (0.0, 1.0):
        can_move |= coloured_by(people.under({"Young": dose}), "skin", "blush", "hair", "beard", "brow")
    assert moved.any(dim=(1, 2)).all()
    assert not (moved & ~can_move).any()
    # What must stay is really there to be looked at.
    for name in ("backdrop", "clothes", "eyes", "mouth"):
        assert (coloured_by(people, name) & ~can_move).any(), name


def test_age_moves_no_hairline_of_women(people: Subjects) -> None:
    women = people.under({"Male": 0.0})
    young, old = women.under({"Young": 1.0}), women.under({"Young": 0.0})
    assert torch.equal(coloured_by(young, "hair"), coloured_by(old, "hair"))
    men = people.under({"Male": 1.0})
    young, old = men.under({"Young": 1.0}), men.under({"Young": 0.0})
    lost = coloured_by(young, "hair").sum(dim=(1, 2)) - coloured_by(old, "hair").sum(dim=(1, 2))
    assert (lost >= 0).all()
    assert (lost > 0).float().mean() > 0.8


def test_eye_colour_changes_irises_only(people: Subjects, photos: torch.Tensor) -> None:
    other = render(people.under({"Blue_Eyes": "flip"}))
    moved = changed(other, photos)
    assert moved.any(dim=(1, 2)).all()
    assert not (moved & ~coloured_by(people, "eyes")).any()
    assert moved.float().mean() < 0.03


@pytest.mark.parametrize(("name", "top", "bottom"), [("Smiling", 0.5, 0.9), ("Eyeglasses", 0.3, 0.65)])
def test_other_roots_act_where_they_belong(
    people: Subjects, photos: torch.Tensor, name: str, top: float, bottom: float
) -> None:
    moved = changed(render(people.under({name: "flip"})), photos)
    assert moved.any(dim=(1, 2)).all()
    assert not moved[:, : int(top * SIZE)].any()
    assert not moved[:, int(bottom * SIZE) :].any()


def test_sex_and_skin_leave_the_backdrop_alone(people: Subjects, photos: torch.Tensor) -> None:
    for do in ({"Male": "flip"}, {"Skin_Tone": 1.0}):
        moved = changed(render(people.under(do)), photos)
        # The corners at the top are backdrop for everybody.
        assert not moved[:, :6, :6].any()
        assert not moved[:, :6, -6:].any()
        assert moved.any(dim=(1, 2)).all()


@pytest.mark.parametrize("dose", [-5.0, -0.5, 0.5, 1.5, 5.0])
def test_any_dose_gives_a_picture(people: Subjects, dose: float) -> None:
    for name in people.roots:
        scene = draw(look(people[:24].under({name: dose})), SIZE)
        assert scene.isfinite().all(), name
        assert scene.min() > -0.5, name
        assert scene.max() < 2.0, name


def test_grain_is_white_and_the_same_under_do(people: Subjects) -> None:
    usual, gray = look(people), torch.full((len(people), 3, SIZE, SIZE), 0.5)
    grain = expose(gray, usual)
    assert torch.equal(grain, expose(gray, look(people.under({"Young": "flip"}))))
    strong = replace(usual, number={**usual.number, "grain": torch.full_like(usual.number["grain"], 0.4)})
    centred = expose(gray, strong)[:, 0].float() / 255.0 - 0.5
    assert abs(centred.mean().item()) < 0.005
    assert centred.std().item() == pytest.approx(0.4 / 3**0.5, rel=0.02)
    for shift in ((0, 1), (1, 0), (1, 1)):
        beside = torch.roll(centred, shift, dims=(1, 2))
        assert abs((centred * beside).mean().item()) < 0.01 * centred.var().item()
