"""Sample images from the prior: draw z ~ p(z|x,t) and decode it; no photograph is needed."""

from collections.abc import Mapping, Sequence

import numpy as np

from civae_core.attributes import AttributeRoles, shortest
from civae_core.engine.base import Array, Engine
from civae_core.errors import UsageError
from civae_core.figures.pictures import as_uint8
from civae_core.randomness import numpy_generator_for

BATCH = 64


def sample_images(
    engine: Engine,
    seeds: Sequence[int],
    stated: Sequence[Mapping[str, float]],
    truncation: float = 1.0,
    subjects_NA: Array | None = None,
) -> tuple[Array, list[dict[str, float]]]:
    """Decoder means of prior draws, uint8 [N,C,S,S] with N = len(seeds), and each image's attribute values.

    A seed fixes the subject and its latent noise. Attributes that are not stated are the subject's own. A stated
    treatment is an intervention: it affects neither which subject is drawn nor the noise, which is drawn under the
    subject's own treatment (`civae_core.draws`). The picture under one value of a treatment therefore does not
    depend on which other values are requested.

    Args:
        seeds: one per image.
        stated: attribute values of each image, in raw units.
        truncation: ψ, the factor applied to the latent noise η. Below 1, subjects are more typical of their
            attributes and less varied; at 0, all subjects with the same attributes look the same.
        subjects_NA: own attributes of each image's subject, in the order of `roles.inputs`; None draws them with
            `drawn_subjects`, given what is stated.

    Raises:
        UsageError: a value is so far outside the training range that no finite image results.
    """
    roles = engine.roles
    if subjects_NA is None:
        subjects_NA = drawn_subjects(engine, seeds, stated)
    own_NT = subjects_NA[:, : len(roles.treatments)]
    a_NA = subjects_NA.copy()
    for row_A, values in zip(a_NA, stated, strict=True):
        for index, attribute in enumerate(roles.inputs):
            row_A[index] = values.get(attribute.name, row_A[index])
    noise_NZ = np.stack(
        [
            numpy_generator_for(seed, "sample-noise").standard_normal(engine.latent, dtype=np.float32)
            for seed in seeds
        ]
    )
    images = []
    for start in range(0, len(seeds), BATCH):
        rows = slice(start, start + BATCH)
        t_BT, x_BX = np.split(a_NA[rows], [len(roles.treatments)], axis=1)
        mean_BCHW = engine.draw(x_BX, t_BT, np.float32(truncation) * noise_NZ[rows], own_NT[rows])
        if not np.isfinite(mean_BCHW).all():
            raise UsageError(
                "the model gives no finite image under the stated values: some are too far beyond what training saw",
                hint="see the warnings",
            )
        images.append(as_uint8(mean_BCHW))
    names = [attribute.name for attribute in roles.inputs]
    labels = [dict(zip(names, map(shortest, row), strict=True)) for row in a_NA.tolist()]
    return np.concatenate(images), labels


def drawn_subjects(engine: Engine, seeds: Sequence[int], stated: Sequence[Mapping[str, float]]) -> Array:
    """Attributes [N,A] of the training subject that each seed draws, in the order of `roles.inputs`.

    A subject is drawn from those that agree with the stated binary covariates, or from all if none agrees.
    """
    examples_NA = np.array(engine.subjects, dtype=np.float32)
    return np.stack(
        [
            _subject(examples_NA, engine.roles, seed, values)
            for seed, values in zip(seeds, stated, strict=True)
        ]
    )


def _subject(examples_NA: Array, roles: AttributeRoles, seed: int, stated: Mapping[str, float]) -> Array:
    agrees_N = np.ones(len(examples_NA), dtype=bool)
    for index, attribute in enumerate(roles.covariates, start=len(roles.treatments)):
        if attribute.name in stated and attribute.kind == "binary":
            agrees_N &= examples_NA[:, index] == stated[attribute.name]
    candidates_NA = examples_NA[agrees_N] if agrees_N.any() else examples_NA
    draw = numpy_generator_for(seed, "sample-subject").random()
    subject_A: Array = candidates_NA[int(draw * len(candidates_NA))]
    return subject_A
