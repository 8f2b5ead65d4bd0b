"""Images from the prior: z ~ p(z|x,t), decoded; no photograph needed."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from civae_core.attributes import AttributeRoles
from civae_core.errors import UsageError
from civae_core.figures.pictures import to_uint8
from civae_core.model.stored import StoredModel
from civae_core.randomness import generator_for

BATCH = 64


@torch.no_grad()
def sample_images(
    stored: StoredModel, seeds: Sequence[int], stated: Sequence[Mapping[str, float]]
) -> tuple[Tensor, list[dict[str, float]]]:
    """Decoder means of prior draws, uint8 [N,C,S,S] with N = len(seeds), and each one's attribute values.

    A seed fixes the latent noise and the subject. Covariates that are not stated are those of a training subject,
    drawn among the subjects that agree with the stated covariates where there are any. A stated treatment is an
    intervention: it is set, and decides neither whose covariates these are nor the noise.

    Args:
        seeds: one per image.
        stated: attribute values of each image, in raw units.

    Raises:
        UsageError: a value is so far beyond training that no picture comes out.
    """
    roles, model = stored.card.roles, stored.model
    device = next(model.parameters()).device
    examples_NA = torch.tensor(stored.card.subjects, dtype=torch.float32)
    a_NA = torch.stack(
        [_subject(examples_NA, roles, seed, values) for seed, values in zip(seeds, stated, strict=True)]
    )
    noise_NZ = torch.stack(
        [torch.randn(model.latent, generator=generator_for(seed, "sample-noise")) for seed in seeds]
    )
    images = []
    treatments = len(roles.treatments)
    for start in range(0, len(seeds), BATCH):
        rows = slice(start, start + BATCH)
        t_BT, x_BX = a_NA[rows].to(device).tensor_split([treatments], dim=1)
        z_BZ = model.prior_of(x_BX, t_BT).sample(noise_NZ[rows].to(device))
        mean_BCHW = model.decode(z_BZ, t_BT, x_BX).mean_BCHW
        if not mean_BCHW.isfinite().all():
            raise UsageError(
                "no picture comes out under the stated values: some are too far beyond what training saw",
                hint="see the warnings",
            )
        images.append(to_uint8(mean_BCHW))
    names = [attribute.name for attribute in roles.inputs]
    labels = [dict(zip(names, (round(v, 6) for v in row), strict=True)) for row in a_NA.tolist()]
    return torch.cat(images), labels


def _subject(examples_NA: Tensor, roles: AttributeRoles, seed: int, stated: Mapping[str, float]) -> Tensor:
    """Attributes of one image [A]: a training subject's, overwritten by what is stated."""
    agrees_N = torch.ones(len(examples_NA), dtype=torch.bool)
    for index, attribute in enumerate(roles.covariates, start=len(roles.treatments)):
        if attribute.name in stated and attribute.kind == "binary":
            agrees_N &= examples_NA[:, index] == stated[attribute.name]
    candidates_NA = examples_NA[agrees_N] if agrees_N.any() else examples_NA
    draw = torch.rand((), generator=generator_for(seed, "sample-subject")).item()
    subject_A = candidates_NA[int(draw * len(candidates_NA))].clone()
    for index, attribute in enumerate(roles.inputs):
        if attribute.name in stated:
            subject_A[index] = stated[attribute.name]
    return subject_A
