"""The ready configs load strictly, name attributes that exist, and keep to the roles' meaning."""

from pathlib import Path

import pytest

from civae_core.config import Config, load_config
from civae_core.config.celeba import ATTRIBUTES, CAUSED_BY
from civae_core.synthetic import ROLES

FOLDER = Path(__file__).parents[2] / "configs"
BENCHMARKS = {
    "benchmark.yml",
    "overlap-sweep.yml",
}  # read by `civae benchmark`: tests/benchmark/test_benchmark_load.py
FILES = sorted(file for file in FOLDER.glob("*.yml") if file.name not in BENCHMARKS)
CELEBA = [file for file in FILES if file.name.startswith(("celeba", "original"))]


def names(config: Config) -> list[str]:
    return [*config.data.treatment, *config.data.covariates, *config.data.descendants]


def test_there_are_configs() -> None:
    assert {"quickstart.yml", "celeba-64-male.yml", "original-128.yml", "image-folder.yml"} <= {
        file.name for file in FILES
    }


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
