"""Devices and precisions: what is not there is refused, what was left open is filled in."""

import os
import warnings

import pytest
import torch

from civae_core.errors import UsageError
from civae_core.model.precision import full_precision
from civae_core.training.device import Compute, choose_device


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.skipif(os.environ.get("CIVAE_TEST_CUDA") == "1", reason="they are told to see GPUs")
def test_the_tests_and_what_they_start_see_no_gpu() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert torch.cuda.device_count() == 0


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_without_one_is_refused_and_not_replaced(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--device {name}: this machine has no CUDA device") as caught:
        choose_device(name)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(UsageError, match="--device cuda:2: this machine has 2 CUDA devices"):
        choose_device("cuda:2")


def test_mps_without_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device mps: this machine has no MPS device"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["quantum", "meta", "xla", "cuda:-1", "cuda:x", "", "CPU "])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--device {name}: unknown device"):
        choose_device(name)


@pytest.mark.usefixtures("no_cuda")
def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, kind in ((False, "cpu"), (True, "mps")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        assert choose_device("auto") == torch.device(kind)


def test_auto_precision_on_the_cpu_is_fp32_in_plain_layout() -> None:
    assert Compute.choose(torch.device("cpu")) == Compute(torch.device("cpu"), "fp32", False)


@pytest.mark.parametrize(
    ("capability", "precision", "fast"), [((7, 5), "fp32", False), ((9, 0), "bf16", True)]
)
def test_auto_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    chosen = Compute.choose(torch.device("cuda", 0))
    assert (chosen.precision, chosen.channels_last) == (precision, fast)


def test_what_was_asked_for_is_kept() -> None:
    assert Compute.choose(torch.device("cpu"), "bf16", True) == Compute(torch.device("cpu"), "bf16", True)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_its_precision(precision: str, dtype: torch.dtype) -> None:
    with Compute.choose(torch.device("cpu"), precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("kind", ["meta", "cpu"])
def test_fp32_asks_no_device_about_autocast(kind: str) -> None:
    with Compute(torch.device(kind), "fp32", False).autocast():
        assert not torch.is_autocast_enabled("cpu")


def test_on_the_cpu_the_smallest_numbers_are_none() -> None:
    """Subnormal numbers make arithmetic many times slower, and they occur where gradients vanish."""
    cpu = Compute.choose(torch.device("cpu"))
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot")
    assert torch.tensor([1e-30]).mul(1e-10).item() > 0
    with cpu.fast_backends():
        assert torch.tensor([1e-30]).mul(1e-10).item() == 0
        with cpu.fast_backends():
            pass
        assert torch.tensor([1e-30]).mul(1e-10).item() == 0, "as it was, not as it usually is"
    assert torch.tensor([1e-30]).mul(1e-10).item() > 0


def test_what_follows_training_on_cuda_computes_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    assert before == "highest"
    with (
        pytest.raises(KeyboardInterrupt),
        Compute(torch.device("cuda", 0), "bf16", True).fast_backends(),
    ):
        assert torch.backends.cudnn.benchmark and torch.get_float32_matmul_precision() == "high"
        raise KeyboardInterrupt
    assert not torch.backends.cudnn.benchmark and torch.get_float32_matmul_precision() == before


def test_advice_on_other_settings_is_not_shown_but_other_warnings_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch 2.9 gives this advice to whoever asks for the precision of products, or sets it."""
    told = "Please use the new API settings to control TF32 behavior, such as …"
    ask, choose = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision

    def asked() -> str:
        warnings.warn(told, stacklevel=2)
        return ask()

    def chosen(precision: str) -> None:
        warnings.warn(told, stacklevel=2)
        choose(precision)

    monkeypatch.setattr(torch, "get_float32_matmul_precision", asked)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with Compute(torch.device("cuda", 0), "fp32", False).fast_backends():
            assert ask() == "high"
            with full_precision(torch.device("cpu")):
                assert ask() == "highest"
            assert ask() == "high"
        assert ask() == "highest" and shown == []
        told = "another"
        with full_precision(torch.device("cpu")):
            pass
    assert [str(warning.message) for warning in shown] == ["another"]
