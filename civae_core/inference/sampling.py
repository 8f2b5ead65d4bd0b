"""Images from the prior: z ~ p(z|x,t), decoded; no photograph needed."""

from collections.abc import Mapping, Sequence

import numpy as np

from civae_core.attributes import AttributeRoles
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
) -> tuple[Array, list[dict[str, float]]]:
    """Decoder means of prior draws, uint8 [N,C,S,S] with N = len(seeds), and each one's attribute values.

    A seed fixes the latent noise and the subject. Covariates that are not stated are those of a training subject,
    drawn among the subjects that agree with the stated covariates where there are any. A stated treatment is an
    intervention: it is set, and decides neither whose covariates these are nor the noise.

    Args:
        seeds: one per image.
        stated: attribute values of each image, in raw units.
        truncation: ψ, the factor of the latent noise η: below 1 subjects come nearer to what is usual for their
            attributes and differ less from each other, at 0 all that share attributes are one.

    Raises:
        UsageError: a value is so far beyond training that no picture comes out.
    """
    roles = engine.roles
    examples_NA = np.array(engine.subjects, dtype=np.float32)
    a_NA = np.stack(
        [_subject(examples_NA, roles, seed, values) for seed, values in zip(seeds, stated, strict=True)]
    )
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
        mean_BCHW = engine.draw(x_BX, t_BT, np.float32(truncation) * noise_NZ[rows])
        if not np.isfinite(mean_BCHW).all():
            raise UsageError(
                "no picture comes out under the stated values: some are too far beyond what training saw",
                hint="see the warnings",
            )
        images.append(as_uint8(mean_BCHW))
    names = [attribute.name for attribute in roles.inputs]
    labels = [dict(zip(names, (round(v, 6) for v in row), strict=True)) for row in a_NA.tolist()]
    return np.concatenate(images), labels


def _subject(examples_NA: Array, roles: AttributeRoles, seed: int, stated: Mapping[str, float]) -> Array:
    """Attributes of one image [A]: a training subject's, overwritten by what is stated."""
    agrees_N = np.ones(len(examples_NA), dtype=bool)
    for index, attribute in enumerate(roles.covariates, start=len(roles.treatments)):
        if attribute.name in stated and attribute.kind == "binary":
            agrees_N &= examples_NA[:, index] == stated[attribute.name]
    candidates_NA = examples_NA[agrees_N] if agrees_N.any() else examples_NA
    draw = numpy_generator_for(seed, "sample-subject").random()
    subject_A = candidates_NA[int(draw * len(candidates_NA))].copy()
    for index, attribute in enumerate(roles.inputs):
        if attribute.name in stated:
            subject_A[index] = stated[attribute.name]
    return subject_A
