"""Yardsticks are trained once for each data set and question; a bad cache costs a warning and nothing else."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from civae_core.attributes import AttributeRoles
from civae_core.errors import CivaeError
from civae_core.yardstick import cache as cache_module
from civae_core.yardstick import load_yardstick, save_yardstick, train_yardstick, yardstick_for
from civae_core.yardstick.cache import cache_folder, cached_path

CPU = torch.device("cpu")


def never(*_: object, **__: object) -> None:
    raise AssertionError("trained again")


def test_the_second_time_it_comes_from_the_cache(
    pictures: Callable[..., Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(count=100)
    roles = AttributeRoles.assign(data.attributes, ["Left"], ["Right"])
    made = yardstick_for(data, roles, CPU, images=32)
    assert made.path is not None and made.path.is_file() and made.path.is_relative_to(cache)
    monkeypatch.setattr(cache_module, "train_yardstick", never)
    found = yardstick_for(data, roles, CPU, images=32)
    assert (found.fingerprint, found.card, found.path) == (made.fingerprint, made.card, made.path)


def test_the_key_holds_all_that_the_weights_depend_on(
    pictures: Callable[..., Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(count=100)
    by_left = AttributeRoles.assign(data.attributes, ["Left"], ["Right"])
    by_right = AttributeRoles.assign(data.attributes, ["Right"], ["Left"])
    caused = AttributeRoles.assign(data.attributes, ["Left"], [], ["Right"])
    watched = AttributeRoles.assign(data.attributes, ["Left"], [])
    paths = [cached_path(data, roles, images=32, seed=0) for roles in (by_left, by_right, caused)]
    paths += [cached_path(data, by_left, images=64, seed=0), cached_path(data, by_left, images=32, seed=1)]
    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "RECIPE", replace(cache_module.RECIPE, noise=0.5))
        paths.append(cached_path(data, by_left, images=32, seed=0))
    data.fingerprint = "1" * 64
    paths.append(cached_path(data, by_left, images=32, seed=0))
    assert len(set(paths)) == 7
    # Whether an attribute is a covariate or only watched makes no difference to a scorer.
    assert cached_path(data, watched, images=32, seed=0) == paths[-1]


def test_an_entry_that_cannot_be_read_is_replaced(
    pictures: Callable[..., Any], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, roles = pictures(count=100), AttributeRoles((), ())
    made = yardstick_for(data, roles, CPU, images=32)
    assert made.path is not None
    made.path.write_bytes(made.path.read_bytes()[:500])
    with caplog.at_level(logging.WARNING, "civae_core"):
        again = yardstick_for(data, roles, CPU, images=32)
    assert "not a readable safetensors file" in caplog.text and "training a scorer again" in caplog.text
    assert again.fingerprint == made.fingerprint == load_yardstick(made.path).fingerprint


def test_what_a_folder_keeps_is_taken_before_what_the_cache_has(
    pictures: Callable[..., Any],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, roles, keep = pictures(count=100), AttributeRoles((), ()), tmp_path / "kept"
    cached = yardstick_for(data, roles, CPU, images=32)
    kept = yardstick_for(data, roles, CPU, images=32, keep=keep)
    assert kept.fingerprint == cached.fingerprint and kept.path is not None and kept.path.parent == keep
    other = train_yardstick(data, roles, images=32, seed=1, device=CPU)
    save_yardstick(other, kept.path)
    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "train_yardstick", never)
        found = yardstick_for(data, roles, CPU, images=32, keep=keep)
        assert (found.fingerprint, found.path) == (other.fingerprint, kept.path)
        kept.path.write_bytes(kept.path.read_bytes()[:500])
        with caplog.at_level(logging.WARNING, "civae_core"):
            found = yardstick_for(data, roles, CPU, images=32, keep=keep)
    assert (
        "not a readable safetensors file" in caplog.text and "another scorer takes its place" in caplog.text
    )
    assert found.fingerprint == load_yardstick(kept.path).fingerprint == cached.fingerprint
    longer = yardstick_for(data, roles, CPU, images=64, keep=keep)
    assert longer.path != kept.path and longer.fingerprint != cached.fingerprint


def test_a_cache_that_cannot_be_written_is_done_without(
    pictures: Callable[..., Any],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, roles = pictures(count=100), AttributeRoles((), ())
    cache.touch()  # a file where the folder should be
    with caplog.at_level(logging.WARNING, "civae_core"):
        made = yardstick_for(data, roles, CPU, images=32)
    assert made.path is None and "the scorer is not kept" in caplog.text
    assert made.read(torch.rand(1, 1, 16, 16)).outputs_BA.shape == (1, 2)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CIVAE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert yardstick_for(data, roles, CPU, images=32).fingerprint == made.fingerprint
    with pytest.raises(CivaeError, match="no home folder"):
        cache_folder()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIVAE_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("CIVAE_CACHE")
    assert cache_folder() == tmp_path / "b" / "civae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "civae"
