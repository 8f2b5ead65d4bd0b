"""Benchmark files: what methods share, what is their own, and errors at their places."""

from pathlib import Path
from typing import Any

import pytest

from civae_core.benchmark.load import load_benchmark
from civae_core.benchmark.schema import DEFAULT_METHODS
from civae_core.config import ConfigError, load_config
from civae_core.config.schema import ORIGINAL_SIGMA, LossConfig, ModelConfig

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = """
base:
  data: {path: d, treatment: Young, covariates: [Male]}
  model: {width: 8, prior: x, sigma: channel, sigma_init: 0.3}
  loss: {beta: 7.0, beta_warmup: 100, weights: overlap}
  train: {images: 640, lr: 3e-4}
"""


def write(folder: Path, text: str, name: str = "bench.yml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, *sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_benchmark(write(folder, text), sets)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def own(config: Any) -> tuple[Any, ...]:
    """What a method is defined by: objective, prior, σ, its start, β and weights."""
    m, loss = config.model, config.loss
    return config.objective, m.prior, m.sigma, m.sigma_init, loss.beta, loss.weights


def test_baselines_keep_their_own_definition_whatever_the_base_states(tmp_path: Path) -> None:
    methods = load_benchmark(write(tmp_path, BASE)).methods
    assert list(methods) == list(DEFAULT_METHODS)
    assert own(methods["ours"]) == ("intact", "x", "channel", 0.3, 7.0, "overlap")
    # A CVAE's σ is no part of its definition, so it is the base's; β, prior and weights are its own.
    assert own(methods["cvae"]) == ("cvae", "standard", "channel", 0.3, 1.0, "none")
    assert own(methods["original"]) == ("original", "standard", "fixed", ORIGINAL_SIGMA, 1e-4, "none")
    assert own(methods["x"]) == ("intact", "x", "channel", 0.3, 7.0, "none")
    assert own(methods["weights"]) == ("intact", "x", "channel", 0.3, 7.0, "inverse")


def test_network_data_budget_and_optimiser_are_shared(tmp_path: Path) -> None:
    methods = load_benchmark(write(tmp_path, BASE)).methods
    ours = methods["ours"]
    for config in methods.values():
        assert (config.data, config.train) == (ours.data, ours.train)
        shared = {"prior", "decoder", "sigma", "sigma_init"}
        assert config.model.model_dump(exclude=shared) == ours.model.model_dump(exclude=shared)
        assert config.loss.beta_warmup == 100
    assert (ours.train.images, ours.train.lr, ours.model.width) == (640, 3e-4, 8)


def test_what_a_method_states_itself_wins(tmp_path: Path) -> None:
    text = BASE + "methods: {cvae: {objective: cvae, loss: {beta: 2}, model: {width: 16}}, ours: {}}\n"
    found = load_benchmark(write(tmp_path, text))
    assert own(found.methods["cvae"]) == ("cvae", "standard", "channel", 0.3, 2.0, "none")
    assert (found.methods["cvae"].model.width, found.methods["ours"].model.width) == (16, 8)
    assert found.changes["cvae"]["loss"] == {"beta": 2}


def test_a_baseline_as_the_base_gives_ours_nothing_of_its_definition(tmp_path: Path) -> None:
    text = "data: {path: d, treatment: Young}\nobjective: cvae\nloss: {beta: 0.5}\nmodel: {width: 8}\n"
    methods = load_benchmark(write(tmp_path, text)).methods
    assert own(methods["cvae"])[::4] == ("cvae", 0.5)  # the same objective as the base: the base as it stands
    assert own(methods["ours"]) == ("intact", "xt", "scalar", 0.1, 5.0, "none")
    assert methods["original"].loss.beta == 1e-4


def test_a_training_config_is_a_base_with_all_methods_and_its_own_seed() -> None:
    found = load_benchmark(CONFIGS / "quickstart.yml", ["base.train.seed=4"])
    assert (set(found.methods), found.seeds, found.faces) == (set(DEFAULT_METHODS), (4,), None)
    plain = load_config([CONFIGS / "quickstart.yml"], ["train.seed=4"])
    assert found.methods["ours"] == plain


def test_the_base_may_be_a_file_beside_this_one(tmp_path: Path) -> None:
    write(tmp_path, "data: {path: d, treatment: Young}\ntrain: {images: 64}\n", "train.yml")
    bench = write(tmp_path, "base: train.yml\nseeds: [3, 3, 1]\n")
    found = load_benchmark(bench, ["base.train.lr=1e-2"])
    assert (found.methods["x"].train.images, found.methods["x"].train.lr) == (64, 0.01)
    assert found.seeds == (3, 1)
    write(tmp_path, "data: {path: d, treatment: Young}\ntrain: {imgs: 64}\n", "train.yml")
    (line,) = problems(tmp_path, "base: train.yml\n")
    assert line.startswith("train.yml:2:9: base.train.imgs: unknown key")
    (line,) = problems(tmp_path, "base: other.yml\n")
    assert line == "other.yml: cannot read it: No such file or directory"


def test_faces_bring_their_roles_and_refuse_a_path(tmp_path: Path) -> None:
    found = load_benchmark(write(tmp_path, "base: {}\nfaces: {n: 300, overlap: 1}\n"))
    assert found.faces is not None and found.faces.overlap == [1.0]
    assert found.methods["ours"].data.treatment == ["Young"]
    assert "Gray_Hair" in found.methods["ours"].data.descendants
    given = load_benchmark(write(tmp_path, "base: {data: {treatment: Male}}\nfaces: {}\n"))
    assert given.methods["ours"].data.covariates == []
    (line,) = problems(tmp_path, "faces: {}\nbase: {data: {path: d, treatment: Young}}\n")
    assert line.startswith("bench.yml:2:15: base.data.path: cannot be combined with `faces`")


def test_roles_that_the_faces_cannot_play_are_named_at_their_place(tmp_path: Path) -> None:
    text = """faces: {}
base:
  data:
    treatment: [Gray_Hair, Hat]
    covariates: [Mael]
    descendants: Beard
methods: {cvae: {objective: cvae}, ours: {}}
"""
    roots = "Young, Male, Smiling, Eyeglasses, Blond_Hair, Blue_Eyes, Skin_Tone"
    have = f"the faces have {roots}, Beard, Gray_Hair, Receding_Hairline, Wrinkles"
    follows = f"Gray_Hair follows from other attributes, so it cannot be set; choose one of {roots}"
    assert problems(tmp_path, text) == [
        f"bench.yml:4:17: base.data.treatment: {follows}",
        f"bench.yml:4:28: base.data.treatment: unknown attribute 'Hat'; {have}",
        f"bench.yml:5:18: base.data.covariates: unknown attribute 'Mael' (did you mean Male?); {have}",
    ]
    (line,) = problems(tmp_path, "faces: {}\nbase: {data: {treatment: Skin_Tone}}\n")
    assert line.startswith("bench.yml:2:26: base.data.treatment: Skin_Tone is continuous, but")
    (line,) = problems(tmp_path, "faces: {}\nbase: {}\n", "base.data.treatment=Wrinkles")
    assert line.startswith("--set base.data.treatment=Wrinkles: base.data.treatment: Wrinkles follows from")
    # A second treatment is not flipped for a truth; given data may have any attributes.
    load_benchmark(write(tmp_path, "faces: {}\nbase: {data: {treatment: [Young, Skin_Tone]}}\n"))
    load_benchmark(write(tmp_path, BASE), ["base.data.treatment=Gray_Hair"])


def test_every_method_answers_the_question_of_the_base(tmp_path: Path) -> None:
    text = """methods:
  ours: {}
  other: {data: {treatment: [Male], covariates: [Young], flip: false}}
  third: {data: {descendants: [Beard]}}
"""
    assert problems(tmp_path, BASE + text) == [
        f"bench.yml:{place}: methods.{key}: cannot differ by method: all methods answer one question"
        for place, key in (
            ("9:18", "other.data.treatment"),
            ("9:37", "other.data.covariates"),
            ("10:18", "third.data.descendants"),
        )
    ]


def test_every_problem_of_base_and_methods_is_named_once_at_its_place(tmp_path: Path) -> None:
    text = """base:
  data: {path: d, treatment: Young}
  model: {stagse: [1], width: -3}
methods:
  cvae: {objctive: cvae}
  copy: {}
  "a/b": {train: {seed: 1}}
  ours: {data: {path: e}, loss: {weights: fair}}
"""
    assert problems(tmp_path, text) == [
        "bench.yml:3:11: base.model.stagse: unknown key (did you mean model.stages?)",
        "bench.yml:3:31: base.model.width: should be greater than 0, not -3",
        "bench.yml:5:10: methods.cvae.objctive: unknown key (did you mean objective?)",
        "bench.yml:6:3: methods.copy: the name is reserved for what every evaluation adds by itself",
        "bench.yml:7:3: methods.a/b: names a folder, so only letters, digits and . _ + - are allowed",
        "bench.yml:7:19: methods.a/b.train.seed: cannot differ by method: list the seeds in `seeds`",
        "bench.yml:8:17: methods.ours.data.path: cannot differ by method: all methods share one data set",
        "bench.yml:8:43: methods.ours.loss.weights: should be one of 'none', 'inverse' or 'overlap', not 'fair'",
    ]


def test_every_problem_of_the_frame_is_named(tmp_path: Path) -> None:
    text = "faces: {overlap: [0.5, 1.5], sise: 3}\nseeds: [0, -1, a, 9223372036854775808]\nmethod: {}\n"
    found = problems(tmp_path, text)
    assert [line.split(": ")[1] for line in found[:-1]] == [
        "faces.overlap[1]",
        "faces.sise",
        "seeds[1]",
        "seeds[2]",
        "seeds[3]",
        "method",
    ]
    assert found[-1] == "base: missing, and it has no default"
    assert "did you mean methods?" in found[5] and "did you mean faces.size?" in found[1]
    assert problems(tmp_path, BASE + "methods: {}\n")[-1].endswith("methods: names no method")


def test_a_wrong_set_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, BASE, "base.train.imagse=3")[0].startswith(
        "--set base.train.imagse=3: base.train.imagse: unknown key (did you mean train.images?)"
    )


@pytest.mark.parametrize(
    ("name", "among", "seeds"),
    [
        ("benchmark", set(DEFAULT_METHODS), (0, 1, 2)),
        ("levers", {"cvae", "original", "x", "xt", "best"}, (0, 1, 2)),
        ("headline", {"cvae", "original", "ours"}, (0, 1, 2)),
        ("no-overlap", {"cvae", "ours"}, (0, 1, 2)),
        ("scales", {"vector", "detail"}, (0,)),
    ],
)
def test_the_ready_benchmarks_load(name: str, among: set[str], seeds: tuple[int, ...]) -> None:
    found = load_benchmark(CONFIGS / f"{name}.yml")
    assert among <= set(found.methods) and found.seeds == seeds


def test_each_lever_is_one_change_to_the_plain_network_and_the_best_is_what_civae_does_by_default() -> None:
    found = load_benchmark(CONFIGS / "levers.yml")
    plain, best = (found.methods[name] for name in ("weights", "best"))
    changes = {}
    for name, config in found.methods.items():
        values = {(s, k): v for s in ("model", "loss") for k, v in getattr(config, s).model_dump().items()}
        base = {(s, k): v for s in ("model", "loss") for k, v in getattr(plain, s).model_dump().items()}
        changes[name] = {key for key in values if values[key] != base[key]}
    levers = (
        *("overlap-weights", "no-x-decoder", "beta-0.5", "beta-50", "adversary", "hsic", "arm-balance"),
        *("reencode", "guidance", "free-bits", "additive-prior", "fade", "layered"),
    )
    assert all(len(changes[name]) == 1 for name in levers)
    assert len({changes[name].pop() for name in levers}) == len(levers) - 1, "two levers are values of β"
    own = {"width", "stages"}
    assert best.model.model_dump(exclude=own) == ModelConfig(place_latents=32).model_dump(exclude=own)
    assert best.loss == LossConfig()


def test_the_default_methods_are_those_of_the_ready_benchmark() -> None:
    stated = load_benchmark(CONFIGS / "benchmark.yml")
    plain = load_benchmark(CONFIGS / "celeba-64-young.yml")
    assert stated.methods == plain.methods
