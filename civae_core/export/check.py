"""Check that exported graphs answer as torch does, on images drawn from the model itself."""

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
"""Batch sizes; graphs are traced with a different one."""


def largest_differences(
    stored: StoredModel, functions: Mapping[str, Function], engine: OnnxEngine
) -> dict[str, float]:
    """Largest difference between each graph's outputs and its function's, on batch sizes other than the traced one.

    Differences are relative for outputs above 1 in size. NaN or infinite where an output is not finite.
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
                # Unlike Python's max, that of torch keeps NaN.
                largest[name] = float(torch.stack([torch.tensor(largest[name]), difference.max()]).max())
    return largest


def examples(stored: StoredModel, count: int) -> dict[str, dict[str, Tensor]]:
    """Inputs of every function for `count` training subjects, with images drawn from the model plus some noise.

    Every second subject keeps its treatment. The others are given that of another subject, some of them beyond the
    training range, since graphs must be right there too.
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
