"""Where a run begins; what leaves nothing to do, or does not fit, is refused by train and its dry run alike."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config.schema import Config
from civae_core.errors import CivaeError, DataError, UsageError
from civae_core.training import checkpoint
from civae_core.training.loop import train
from civae_core.training.preview import preview

MakeConfig = Callable[..., Config]


pytestmark = pytest.mark.usefixtures("no_sample_grids")


def refused(config: Config, out: Path, **options: Any) -> CivaeError:
    """The error with which both train and its dry run refuse, without having written anything."""
    before = sorted(out.rglob("*"))
    errors = []
    for run in (preview, train):
        with pytest.raises(CivaeError) as caught:
            run(config, out, device="cpu", **options)
        errors.append(caught.value)
    assert sorted(out.rglob("*")) == before
    assert out.exists() == bool(before)
    (first, second) = errors
    assert (type(first), first.message) == (type(second), second.message)
    return second


@pytest.mark.parametrize("place", ["", "checkpoints/last"])
def test_a_finished_run_leaves_nothing_to_start_another_with(
    tiny_config: MakeConfig, trained: Path, tmp_path: Path, place: str
) -> None:
    start = str(trained / place)
    error = refused(tiny_config(), tmp_path / "run", resume=start)
    assert isinstance(error, UsageError)
    assert f"--resume {start}: has seen 512 images already and train.images is 512" in error.message
    error = refused(tiny_config({"train.images": 1024}), tmp_path / "run", resume=start, stop_at=300)
    assert "512 images already and --stop-at is 300" in error.message
    more = tiny_config({"train.images": 544})
    assert preview(more, tmp_path / "run", device="cpu", resume=start).images_to == 544
    assert train(more, tmp_path / "run", device="cpu", resume=start).images_seen == 544


def test_a_last_that_is_a_file_naming_its_checkpoint_can_be_started_from(
    tiny_config: MakeConfig, trained: Path, tmp_path: Path
) -> None:
    """As it is on disks without symbolic links."""
    checkpoints = tmp_path / "copied" / "checkpoints"
    shutil.copytree(trained / "checkpoints", checkpoints, symlinks=True)
    for link in ("last", "best"):
        named = (checkpoints / link).readlink().name
        (checkpoints / link).unlink()
        (checkpoints / link).write_text(f"{named}\n")
    begun = train(
        tiny_config({"train.images": 544}), tmp_path / "run", device="cpu", resume=str(checkpoints / "last")
    )
    assert begun.images_seen == 544


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.latent": 8}, "does not fit the model: "),
        (
            {"data.covariates": ["Male"]},
            "treatments and covariates are Young | Male, Skin_Tone, but the config's",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_costs_no_folder(
    tiny_config: MakeConfig, trained: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = tiny_config({"train.images": 1024} | changes)
    error = refused(config, tmp_path / "run", resume=str(trained))
    assert isinstance(error, DataError) and message in error.message


def with_covariate(attribute: Attribute) -> AttributeRoles:
    return AttributeRoles((Attribute("Young", "binary"),), (attribute,))


def test_an_attribute_that_was_of_another_kind_is_refused() -> None:
    saved, wanted = (
        with_covariate(Attribute("Beard", "binary")),
        with_covariate(Attribute("Beard", "continuous")),
    )
    with pytest.raises(
        DataError, match="trained with Beard as a binary attribute, but in this data it is continuous"
    ):
        checkpoint._require_same_inputs(saved, wanted, Path("model.safetensors"))


@pytest.mark.parametrize(
    ("mean", "std", "warns"), [(40, 10, False), (40.9, 10.9, False), (45, 10, True), (40, 12, True)]
)
def test_an_attribute_that_had_another_scale_is_warned_of(
    mean: float, std: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    saved, wanted = (
        with_covariate(Attribute("Age", "continuous", low=0, high=90, mean=m, std=s))
        for m, s in ((40, 10), (mean, std))
    )
    checkpoint._require_same_inputs(saved, wanted, Path("model.safetensors"))
    said = f"Age had mean 40 and standard deviation 10; here they are {mean:.3g} and {std:.3g}"
    assert (said in caplog.text) is warns


def test_weights_that_cannot_be_had_cost_no_folder(tiny_config: MakeConfig, tmp_path: Path) -> None:
    changes = {
        "data.treatment": ["Skin_Tone"],
        "data.covariates": ["Male"],
        "data.descendants": [],
        "loss.weights": "overlap",
    }
    assert "overlap" in refused(tiny_config(changes), tmp_path / "run").message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": "must"}, "--resume must: "),
        ({"resume": "nowhere"}, "--resume nowhere: no such run or checkpoint folder"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    tiny_config: MakeConfig, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    assert message in refused(tiny_config(), tmp_path / "run", **options).message


def test_a_dry_run_refuses_folders_that_the_run_would(
    tiny_config: MakeConfig, tmp_path: Path, trained: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "is neither empty nor a run" in refused(tiny_config(), tmp_path).message
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    assert "holds a run with a different config" in refused(tiny_config({"train.lr": 1.0}), run).message
    assert "already holds a run" in refused(tiny_config(), run, resume="never").message
    assert "already holds a run that" in refused(tiny_config(), run, resume=str(trained)).message


def test_a_dry_run_says_from_where_to_where(tiny_config: MakeConfig, trained: Path, tmp_path: Path) -> None:
    def span(config: Config, out: Path, **options: Any) -> tuple[int, int, str]:
        found = preview(config, out, device="cpu", **options)
        (line,) = (line for line in found.describe().splitlines() if line.startswith("images "))
        return found.images_from, found.images_to, " ".join(line.split()[1:])

    assert span(tiny_config(), tmp_path / "run") == (0, 512, "to 512, then pairing noises on 16")
    assert span(tiny_config({"model.pairing": "none"}), tmp_path / "run") == (0, 512, "to 512")
    assert span(tiny_config(), tmp_path / "run", stop_at=256) == (0, 256, "to 256")
    longer = tiny_config({"train.images": 640})
    assert span(longer, trained) == (512, 640, "continuing from 512 to 640, then pairing noises on 16")
    assert span(tiny_config(), trained, stop_at=256) == (512, 256, "nothing to do: 512 are done")


@pytest.fixture
def stopped_early(tiny_config: MakeConfig, trained: Path, tmp_path: Path) -> tuple[Config, Path, Path]:
    """A config, and a run under it that was started from another run and killed before its first checkpoint."""
    config, origin, run = tiny_config({"train.images": 544}), tmp_path / "origin", tmp_path / "run"
    shutil.copytree(trained, origin, symlinks=True)
    train(config, run, device="cpu", resume=str(origin))
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    return config, origin, run


def test_a_run_without_a_checkpoint_starts_again_from_where_it_was_started(
    stopped_early: tuple[Config, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    config, origin, run = stopped_early
    caplog.set_level(logging.INFO, "civae_core")
    assert preview(config, run, device="cpu").images_from == 512
    assert train(config, run, device="cpu").images_seen == 544
    assert f"starting from {origin} again" in caplog.text
    assert "continuing from 512 to 544 images" in caplog.text
    assert json.loads((run / "env.json").read_text("utf-8"))["started_from"] == str(origin)


def test_without_what_it_was_started_from_it_is_refused_unless_told_to_start_from_scratch(
    stopped_early: tuple[Config, Path, Path],
) -> None:
    config, origin, run = stopped_early
    origin.rename(origin.with_name("moved"))
    error = refused(config, run)
    assert isinstance(error, UsageError)
    assert f"holds a run started from {origin}, which is no longer there" in error.message
    assert "--resume never" in (error.hint or "")
    assert preview(config, run, device="cpu", resume=str(origin.with_name("moved"))).images_from == 512
    assert train(config, run, device="cpu", resume="never", stop_at=32).images_seen == 32
    assert json.loads((run / "env.json").read_text("utf-8"))["started_from"] is None


def test_what_is_said_before_there_is_a_folder_stands_in_its_log(
    tiny_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "civae_core")
    config = tiny_config({"train.images": 16, "train.batch_size": 16, "loss.weights": "inverse"})
    train(config, tmp_path / "run", device="cpu")
    logged = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert logged.count("INFO weights: inverse, effective sample size") == 1
    assert logged.index("weights: ") < logged.index("training to 16 images")
    train(config, tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").startswith(logged), "and it grows"
