"""civae evaluate: numbers on stdout, a table on stderr, files in the run, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.config.schema import Config
from civae_core.data import PreparedData
from civae_core.errors import CivaeError
from civae_core.evaluation import evaluate
from civae_core.inference.png import write_image
from civae_core.training.loop import train

DRAWN = evaluate.illustrate
OwnData = Callable[[dict[str, Tensor]], Path]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures, which takes longer than all the rest; one test asks for them."""
    monkeypatch.setattr(evaluate, "illustrate", lambda *_a, **_k: [])


def civae(*arguments: object) -> tuple[int, str, str]:
    trains = not {"--scorer", "--questions"} & set(arguments)
    quick = ["--scorer-images", "64"] if trains else []
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), *quick], env={"COLUMNS": "80"})
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of its own, since reports are written into it."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "tiny", symlinks=True))


def test_numbers_go_to_stdout_and_beside_the_report(run: Path) -> None:
    code, stdout, stderr = civae(run, "--limit", 8)
    assert code == 0
    assert stdout == f"{run / 'evaluation.json'}\n"
    assert f"wrote {run / 'report.html'} and {run / 'evaluation.json'}" in stderr
    assert "relative effect error" in stderr and "copy" in stderr
    table = stderr[stderr.index("measure ") : stderr.index("wrote ")]
    assert max(map(len, table.splitlines())) <= 80
    code, stdout, _ = civae(run, "--limit", 8, "--json", "-q")
    numbers = json.loads(stdout)
    assert code == 0 and stdout.count("\n") == 1
    assert numbers == json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert (numbers["n"], numbers["split"], set(numbers["methods"])) == (8, "test", {"copy", "ours", "truth"})
    assert numbers["methods"]["copy"]["relative_effect_error"]["mean"] == 1.0


def test_quiet_leaves_only_the_result(run: Path) -> None:
    assert civae(run, "--limit", 2, "-q") == (0, f"{run / 'evaluation.json'}\n", "")


def test_a_checkpoint_is_reported_in_its_run_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    code, stdout, _ = civae(run / "checkpoints" / "last", "--limit", 2)
    assert (code, stdout) == (0, f"{run / 'evaluation.json'}\n")
    page = tmp_path / "elsewhere" / "page.html"
    code, stdout, _ = civae(run, "--limit", 2, "--report", page)
    assert (code, stdout) == (0, f"{page.with_name('evaluation.json')}\n")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_several_runs_stand_in_one_table(
    run: Path, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    for objective in ("cvae", "original"):
        settings = {"objective": objective, "train.images": 64, "loss.beta": 1.0}
        train(tiny_config(settings), tmp_path / objective, device="cpu")
    longer = Path(shutil.copytree(run, tmp_path / "longer", symlinks=True))
    against = [part for other in ("cvae", "original", "longer") for part in ("--against", tmp_path / other)]
    code, stdout, stderr = civae(run, *against, "--limit", 4, "--json")
    numbers = json.loads(stdout)
    assert code == 0
    assert list(numbers["methods"]) == ["copy", "ours", "cvae", "original", f"ours ({longer.name})", "truth"]
    assert numbers["methods"]["ours"] == numbers["methods"][f"ours ({longer.name})"]
    assert numbers["images_seen"]["cvae"] == 64
    assert all(name in stderr for name in ("copy", "cvae", "original"))


def test_without_truth_the_table_has_reconstructions_only(run: Path) -> None:
    code, stdout, stderr = civae(run, "--split", "train", "--limit", 4, "--scorer", "none", "--json")
    assert code == 0
    assert set(json.loads(stdout)["methods"]["ours"]) == {
        "psnr_reconstruction", "ssim_reconstruction", "ms_ssim_reconstruction", "bits_per_dim", "composition",
        "reversibility"
    }  # fmt: skip
    assert "effect" not in stderr


def test_without_truth_the_scorer_still_judges(run: Path) -> None:
    code, stdout, _ = civae(run, "--split", "train", "--limit", 8, "--json")
    methods = json.loads(stdout)["methods"]
    assert code == 0 and list(methods) == ["copy", "ours"]
    for entry in methods.values():
        assert {"effectiveness", "leak", "minimality", "realism"} <= set(entry)
        assert entry["leak_reference"] == "input" and "relative_effect_error" not in entry
    assert methods["copy"]["leak"]["Male"]["mean"] == 0.0
    assert methods["copy"]["minimality"]["cld"]["mean"] == pytest.approx(0.2954, abs=1e-4)


def test_a_scorer_is_trained_once_or_read_from_a_file_that_fits(
    run: Path, faces: PreparedData, tmp_path: Path
) -> None:
    assert civae(run, "--limit", 4, "-q")[0] == 0  # trains it, where no earlier test has
    assert "training an independent scorer" not in civae(run, "--limit", 4)[2]
    made = CliRunner().invoke(
        app,
        ["train-scorer", str(faces.path), "--out", str(tmp_path / "s.safetensors"), "--images", "32", "-q"],
    )
    assert made.exit_code == 0
    code, stdout, _ = civae(run, "--limit", 4, "--scorer", tmp_path / "s.safetensors", "--json")
    scorer = json.loads(stdout)["scorer"]
    assert code == 0 and scorer["name"] == f"scorer {scorer['fingerprint'][:8]}"
    assert set(scorer["reconstructions"]) == {"ours"} and "Male" in scorer["photos"]
    code, _, stderr = civae(run, "--limit", 4, "--scorer", run / "config.yml")
    assert code == 3 and "config.yml" in stderr and "hint:" in stderr
    code, _, stderr = civae(run, "--limit", 4, "--extractor", "incepton")
    assert code == 2 and "incepton" in stderr


def test_a_scorer_of_other_data_judges_also_what_this_data_has_no_labels_of(
    run: Path, faces: PreparedData, own_data: OwnData, tmp_path: Path
) -> None:
    file, known = tmp_path / "s.safetensors", ("Young", "Male", "Skin_Tone")
    made = CliRunner().invoke(app, ["train-scorer", str(faces.path), "--out", str(file), "--images", "32"])
    assert made.exit_code == 0
    own = own_data({name: faces.column(name) for name in known})
    code, stdout, stderr = civae(run, "--data", own, "--scorer", file, "--json")
    assert code == 0 and "the scorer was trained on synthetic:faces, not on this data" in stderr
    numbers = json.loads(stdout)
    ours = numbers["methods"]["ours"]
    assert {"Male", "Skin_Tone", "Smiling"} <= set(ours["leak"]) and "Gray_Hair" in ours["descendants"]
    assert set(ours["leak_accuracy"]) == set(ours["leak_auc"]) == {"Male"}, "what has labels"
    assert set(numbers["scorer"]["reconstructions"]["ours"]) == set(known)
    assert (run / "report.html").is_file()


def test_a_column_of_another_kind_than_in_training_is_refused(
    run: Path, faces: PreparedData, own_data: OwnData, tmp_path: Path
) -> None:
    columns = {name: faces.column(name) for name in ("Young", "Skin_Tone")}
    own = own_data(columns | {"Male": 1 + faces.column("Male")})
    for command in (
        ["evaluate", run, "--data", own],
        ["effects", run, "--treat", "Young=0", "--data", own, "--out", tmp_path / "effects"],
        ["train-scorer", own, "--on", run, "--out", tmp_path / "scorer"],
    ):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert (result.exit_code, result.stdout) == (3, "")
        assert (
            f"{own}: Male is continuous there, but the model was trained with it as binary" in result.stderr
        )
        assert "hint: write Male as in training (0 or 1), and prepare the data again" in result.stderr


def test_figures_are_files_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "illustrate", DRAWN)
    code, _, _ = civae(run, "--limit", 8, "--figures", tmp_path / "figures")
    written = {file.stem for file in (tmp_path / "figures").glob("*.png")}
    assert code == 0 and {"sheet_Young-flip", "propensity_Young"} <= written


def test_named_data_is_scored_instead_of_the_models_own(
    run: Path, faces: PreparedData, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(faces.path, tmp_path / "copy"))
    code, stdout, _ = civae(run, "--data", copy, "--limit", 2, "--json")
    assert code == 0 and json.loads(stdout)["fingerprint"] == faces.fingerprint
    code, stdout, stderr = civae(run, "--data", tmp_path / "nowhere")
    assert (code, stdout) == (3, "") and str(tmp_path / "nowhere") in stderr


def test_the_numbers_outlast_a_page_that_fails(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> str:
        raise CivaeError("no page")

    monkeypatch.setattr("civae_core.evaluation.output.render_evaluation", fails)
    code, stdout, stderr = civae(run, "--limit", 2, "--scorer", "none")
    assert (code, stdout) == (1, "") and "error: no page" in stderr
    assert json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["n"] == 2
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    "command",
    [
        "prepared",
        "unwritable",
        "a folder",
        "the numbers",
        "no figures",
        "no run",
        "no test",
        "seed",
        "extractor",
        "no change",
    ],
)
def test_refusals_come_before_the_work(
    run: Path,
    faces: PreparedData,
    small_scorer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("scored before it was refused")

    monkeypatch.setattr("civae_core.evaluation.evaluate.counterfactual_scores", never)
    monkeypatch.setattr("civae_core.evaluation.instruments.yardstick_for", never)
    if command == "prepared":
        small = tmp_path / "small"
        prepare = ["prepare-data", "synthetic:faces", "--n", "30", "--size", "48", "--workers", "1"]
        assert CliRunner().invoke(app, [*prepare, "--out", str(small)]).exit_code == 0
        code, stdout, stderr = civae(run, "--data", small)
        assert code == 2 and f"{small}: images are 3×48×48, the model takes 3×32×32" in stderr
    elif command == "unwritable":
        (tmp_path / "file").touch()
        code, stdout, stderr = civae(run, "--report", tmp_path / "file" / "page.html")
        assert code == 1 and f"cannot write {tmp_path / 'file'}" in stderr
    elif command == "a folder":
        code, stdout, stderr = civae(run, "--report", tmp_path)
        assert code == 2 and f"--report {tmp_path}: is a folder" in stderr
        assert f"hint: name a page, as in {tmp_path / 'report.html'}" in stderr
    elif command == "the numbers":
        code, stdout, stderr = civae(run, "--report", run / "evaluation.json")
        assert code == 2 and f"--report {run / 'evaluation.json'}: the numbers are written there" in stderr
        assert "hint: name a page" in stderr
    elif command == "no figures":
        (tmp_path / "file").touch()
        code, stdout, stderr = civae(run, "--figures", tmp_path / "file" / "figures")
        assert code == 1 and f"cannot write {tmp_path / 'file'}" in stderr
    elif command == "no test":
        rows = PreparedData.rows
        monkeypatch.setattr(
            PreparedData, "rows", lambda data, of: rows(data, of)[: 0 if of == "test" else None]
        )
        code, stdout, stderr = civae(run)
        assert code == 3 and "the test split has no image whose treatment and covariates are all" in stderr
        assert "hint: score another split, with --split valid" in stderr
    elif command == "seed":
        code, stdout, stderr = civae(run, "--seed", 2**64)
        assert code == 2 and f"--seed {2**64}: has more than 63 bits" in stderr
        assert "hint: use a number up to 9223372036854775807" in stderr
    elif command == "extractor":
        code, stdout, stderr = civae(run, "--extractor", small_scorer)
        assert code == 2 and f"--extractor {small_scorer}: takes images of 1×16×16, but those of" in stderr
        assert "hint: train one on this data with `civae train-scorer`" in stderr
    elif command == "no change":
        theirs = tmp_path / "theirs"
        young = int(faces.column("Young")[faces.rows("test")[0]])
        write_image(theirs / "0.png", faces.images(faces.rows("test")[:1])[0])
        (theirs / "counterfactuals.csv").write_text(f"file_name,source,Young\n0.png,test[0],{young}\n")
        code, stdout, stderr = civae(run, "--images", theirs)
        assert code == 3 and f"--images {theirs}: no row intends a change" in stderr
    else:
        code, stdout, stderr = civae(tmp_path / "gone")
        assert code == 2 and f"{tmp_path / 'gone'}: no such run, checkpoint or model file" in stderr
        assert "hint: train one" in stderr
    assert stdout == "" and "Traceback" not in stderr
    assert not (run / "report.html").exists() and not (run / "evaluation.json").exists()


def test_a_seed_may_be_negative(run: Path) -> None:
    code, stdout, _ = civae(run, "--limit", 2, "--scorer", "none", "--seed", -1, "--json")
    assert code == 0 and json.loads(stdout)["seed"] == -1


def test_another_program_is_asked_and_scored(run: Path, faces: PreparedData, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    roles = ["--data", faces.path, "--treatment", "Young", "--covariate", "Male", "--descendant", "Gray_Hair"]
    code, stdout, stderr = civae(*roles, "--questions", theirs, "--limit", 6)
    assert (code, stdout) == (0, f"{theirs / 'counterfactuals.csv'}\n") and "--images" in stderr
    code, _, stderr = civae(*roles, "--questions", theirs)
    assert code == 2 and "already" in stderr
    (theirs / "answers").mkdir()
    for number, source in enumerate(sorted((theirs / "sources").iterdir())):
        shutil.copy(source, theirs / "answers" / f"{number:06d}.png")
    code, stdout, _ = civae(*roles, "--images", theirs, "--json")
    numbers = json.loads(stdout)
    assert "noise" not in numbers, "which their pictures know nothing of"
    assert code == 0 and list(numbers["methods"]) == ["copy", "theirs", "truth"]
    assert numbers["n"] == 6 and (theirs / "report.html").is_file()
    code, stdout, _ = civae(run, "--images", theirs, "--json")
    beside_a_run = json.loads(stdout)
    assert code == 0 and set(beside_a_run["methods"]) == {"copy", "theirs", "ours", "truth"}
    assert beside_a_run["noise"] == 1.0


def test_what_there_is_to_score_must_be_said(faces: PreparedData, tmp_path: Path) -> None:
    for arguments, message in (
        ((), "nothing to score"),
        (("--images", tmp_path), "--data is not given"),
        (("--images", tmp_path, "--data", faces.path), "no treatment is named"),
        (("--images", tmp_path, "--data", faces.path, "--treatment", "Young"), "has no table"),
        (("--images", tmp_path, "--data", faces.path, "--treatment", "Yuong"), "did you mean Young?"),
    ):
        code, stdout, stderr = civae(*arguments)
        assert (code, stdout) == (2, "") and message in stderr and "hint:" in stderr
