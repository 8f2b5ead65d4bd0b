"""Whether exported graphs answer as torch does, on images that the model itself has drawn."""

from collections.abc import Mapping

import torch
from torch import Tensor

from civae_core.draws import decode_prior
from civae_core.engine.card import OWN
from civae_core.engine.onnx_engine import OnnxEngine
from civae_core.export.graphs import Function, functions_of
from civae_core.model.stored import StoredModel
from civae_core.randomness import generator_for

CHECKED_WITH = (1, 5)
"""Sizes of batches; graphs are traced with another."""


def largest_differences(
    stored: StoredModel, functions: Mapping[str, Function], engine: OnnxEngine
) -> dict[str, float]:
    """How far each graph's outputs are from its function's, on batches of other sizes than it was traced with.

    A difference of an output above one is relative to its size. NaN where either is not finite.
    """
    largest = dict.fromkeys(functions, 0.0)
    for count in CHECKED_WITH:
        tensors_of = examples(stored, count)
        for name, function in functions.items():
            inputs = {key: tensors_of[name][key] for key in function.inputs}
            with torch.no_grad():
                wanted = function(*inputs.values())
            found = engine.run(name, **{key: value.numpy() for key, value in inputs.items()})
            for expected, output in zip(wanted, function.outputs, strict=True):
                difference = (torch.from_numpy(found[output]) - expected).abs() / expected.abs().clamp(min=1)
                # NaN, once there, stays.
                largest[name] = float(torch.stack([torch.tensor(largest[name]), difference.max()]).max())
    return largest


def examples(stored: StoredModel, count: int) -> dict[str, dict[str, Tensor]]:
    """Inputs of every function for `count` training subjects, their images drawn from the model with some noise.

    Every second one keeps its treatment; the others are given that of another subject, and some more than training
    saw, since graphs must be right there too.
    """
    model, roles = stored.model, stored.card.roles
    functions = functions_of(model, stored.card.config.objective)
    generator = generator_for(0, "export-examples", count)
    subjects_NA = torch.tensor(stored.card.subjects, dtype=torch.float32)
    rows = torch.randint(len(subjects_NA), (2, count), generator=generator)
    t_BT, x_BX = subjects_NA[rows[0]].tensor_split([len(roles.treatments)], dim=1)
    other_BT = subjects_NA[rows[1], : len(roles.treatments)] + torch.linspace(-0.5, 2.0, count)[:, None]
    t_new_BT = torch.where(torch.arange(count)[:, None] % 2 == 1, t_BT, other_BT)
    z_BZ = torch.randn(count, model.latent, generator=generator)
    with torch.no_grad():
        drawn_BCHW = decode_prior(model, x_BX, t_BT, z_BZ)
        y_BCHW = (drawn_BCHW + 0.05 * torch.randn(drawn_BCHW.shape, generator=generator)).clamp(0, 1)
        common = {"y": y_BCHW, "x": x_BX, "t": t_BT, "z": z_BZ, "noise_z": z_BZ, "t_new": t_new_BT}
        common |= {OWN: t_new_BT}
        abducted = functions["abduct"](y_BCHW, x_BX, t_BT)
    noises = dict(zip(functions["abduct"].outputs, abducted, strict=True))
    single = {"noise": torch.tensor(0.75), "strength": torch.tensor(1.25)}
    return {name: common | (noises | single if name == "predict" else {}) for name in functions}
