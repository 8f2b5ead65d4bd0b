"""The ready configs load strictly, name attributes that exist, and keep to the roles' meaning."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

from civae_cli.app import app
from civae_core.celeba import ATTRIBUTES, CAUSED_BY
from civae_core.config import Config, load_config
from civae_core.data.sources.faces import BUILT_IN, DEFAULT_TRUTHS
from civae_core.data.sources.truths import parse_truths
from civae_core.synthetic import ROLES, FaceProcess, attributes_of, roots_of

FOLDER = Path(__file__).parents[2] / "configs"
BENCHMARKS = {
    "benchmark.yml",
    "headline.yml",
    "levers.yml",
    "no-overlap.yml",
    "scales.yml",
}  # read by `civae benchmark`: tests/benchmark/test_benchmark_load.py
FILES = sorted(file for file in FOLDER.glob("*.yml") if file.name not in BENCHMARKS)
FACES = [file for file in FILES if file.name.startswith("faces")]
CELEBA = [file for file in FILES if file.name.startswith(("celeba", "original"))]


def names(config: Config) -> list[str]:
    return [*config.data.treatment, *config.data.covariates, *config.data.descendants]


def commands(file: Path) -> list[list[str]]:
    """The arguments of each `civae …` in the comment at the head of a config."""
    head = "".join(
        line.removeprefix("#") for line in file.read_text().splitlines(keepends=True) if line[0] == "#"
    )
    return [
        shlex.split(found)[1:] for found in re.findall(r"^ {3}(civae .*)$", head.replace("\\\n", ""), re.M)
    ]


def prepared_source(file: Path) -> tuple[str, list[str]]:
    """The built-in source, and its truths, that the head of a config prepares."""
    (arguments,) = [arguments for arguments in commands(file) if arguments[0] == "prepare-data"]
    given = [value for flag, value in itertools.pairwise(arguments) if flag == "--truth"]
    return arguments[1], given or list(DEFAULT_TRUTHS[arguments[1]])


def test_there_are_configs() -> None:
    assert {
        "quickstart.yml",
        "celeba-64-male.yml",
        "original-128.yml",
        "image-folder.yml",
        "faces-age.yml",
    } <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_config_loads(file: Path) -> None:
    assert load_config([file]).data.treatment


@pytest.mark.parametrize("file", CELEBA, ids=lambda file: file.stem)
def test_celeba_configs_name_only_celebas_attributes(file: Path) -> None:
    config = load_config([file])
    assert set(names(config)) <= set(ATTRIBUTES)
    assert len(names(config)) == len(set(names(config)))


@pytest.mark.parametrize("file", [f for f in CELEBA if "original" not in f.name], ids=lambda file: file.stem)
def test_what_the_treatment_causes_is_a_descendant(file: Path) -> None:
    data = load_config([file]).data
    assert set(data.descendants) == CAUSED_BY[data.treatment[0]]


@pytest.mark.parametrize("file", [f for f in CELEBA if "original" in f.name], ids=lambda file: file.stem)
def test_the_original_s_presets_have_its_network(file: Path) -> None:
    config = load_config([file])
    assert (config.objective, config.model.network) == ("original", "original")
    assert not config.model.predictor, "it had none"


def test_celebas_list_is_in_the_official_order() -> None:
    assert len(ATTRIBUTES) == 40
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES, key=str.lower)
    assert (ATTRIBUTES[20], ATTRIBUTES[39]) == ("Male", "Young")
    assert all(caused <= set(ATTRIBUTES) for caused in CAUSED_BY.values())


def test_quickstart_asks_what_the_built_in_faces_answer() -> None:
    data = load_config([FOLDER / "quickstart.yml"]).data
    assert data.treatment == [a.name for a in ROLES.treatments]
    assert set(data.covariates) == {a.name for a in ROLES.covariates}
    assert set(data.descendants) == {a.name for a in ROLES.descendants}


@pytest.mark.parametrize("file", FACES, ids=lambda file: file.stem)
def test_face_configs_name_what_the_treatments_cause(file: Path) -> None:
    data, ageing = load_config([file]).data, BUILT_IN[prepared_source(file)[0]]
    columns = [a.name for a in attributes_of(ageing)]
    before = FaceProcess(ageing=ageing).subjects(0, 3_000)
    # The sum of what each treatment moves, and what they move together.
    opposite = {name: "flip" if name != "Age" else 103.0 - before.roots[name] for name in data.treatment}
    changed: set[str] = set()
    for do in [opposite, *({name: value} for name, value in opposite.items())]:
        moved_A = (before.under(do).attributes_NA != before.attributes_NA).any(0)
        changed |= {name for name, moved in zip(columns, moved_A.tolist(), strict=True) if moved}
    assert changed == {*data.treatment, *data.descendants}
    assert set(data.covariates) == {a.name for a in roots_of(ageing)} - set(data.treatment)


@pytest.mark.parametrize("file", FACES, ids=lambda file: file.stem)
def test_face_configs_are_asked_what_they_prepare(file: Path) -> None:
    named, texts = prepared_source(file)
    treatments = set(load_config([file]).data.treatment)
    truths = parse_truths(texts, roots_of(BUILT_IN[named]), ())
    assert all(set(truth.do) <= treatments for truth in truths)
    assert any(set(truth.do) == treatments for truth in truths)


@pytest.mark.parametrize("file", FACES, ids=lambda file: file.stem)
def test_the_commands_at_the_head_of_face_configs_parse_and_fit_together(file: Path) -> None:
    group = typer.main.get_command(app)
    found = commands(file)
    assert [arguments[0] for arguments in found] == ["prepare-data", "train", "evaluate", "counterfactual"]
    for arguments in found:
        command = group.get_command(typer.Context(group), arguments[0])  # type: ignore[attr-defined]
        command.make_context(arguments[0], arguments[1:])
    data = load_config([file]).data
    assert ["--out", data.path] == found[0][2:4]
    assert ["--config", f"configs/{file.name}"] == found[1][1:3]
    run = found[1][found[1].index("--out") + 1]
    assert found[2][1] == run and found[3][found[3].index("--model") + 1] == run
    assert found[3][1].startswith(f"{data.path}#test")
