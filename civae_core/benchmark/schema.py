"""Schema of a benchmark file: a base config, and what each method changes in it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from civae_core.config.schema import Count, Section


def _one_or_many(value: object) -> object:
    return value if isinstance(value, list) else [value]


Overlap = Annotated[float, Field(gt=0, le=1)]


class FacesConfig(Section):
    """Built-in faces that the benchmark prepares itself, once for each overlap."""

    n: Annotated[int, Field(ge=100)] = 10_000
    """Number of faces to make, including held-out ones."""
    size: Count = 32
    """Side of the images in pixels."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of subjects and noise; every overlap has the same subjects."""
    overlap: Annotated[list[Overlap], BeforeValidator(_one_or_many), Field(min_length=1)] = [0.5]  # noqa: RUF012
    """How freely the treatment is assigned: 1 at random, towards 0 by the covariates alone; one value or several."""


class BenchmarkFile(Section):
    """The benchmark file that `civae benchmark` reads."""

    base: dict[str, Any]
    """The training config that all methods share, as for `civae train`, or the name of a file that holds it."""
    faces: FacesConfig | None = None
    """Faces to make; if left out, the data are those at base.data.path."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)] | None = None
    """Training seeds, one run each; if left out, base.train.seed."""
    methods: dict[str, dict[str, Any]] | None = None
    """Changes to the base, by method name; if left out, ours and all baselines."""


DEFAULT_METHODS: dict[str, dict[str, Any]] = {
    "cvae": {"objective": "cvae"},
    "original": {"objective": "original"},
    "x": {"objective": "intact", "model": {"prior": "x"}, "loss": {"weights": "none"}},
    "weights": {"objective": "intact", "loss": {"weights": "inverse"}},
    "ours": {"objective": "intact"},
}
"""The plain CVAE, the original project, the balanced prior of the published method, the base with inverse-propensity
weights, and the base itself."""
