"""The original project's network: its parameters to the last layer, its arithmetic, and where attributes enter."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_cards import with_card
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config import Config, load_config
from civae_core.config.schema import ORIGINAL_NETWORK, ModelConfig
from civae_core.data.images import Preprocessing
from civae_core.model import IntactVAE
from civae_core.model.encoder import DividedEncoder
from civae_core.model.original import BottleneckBlock, OriginalDecoder, OriginalEncoder
from civae_core.model.stored import ModelCard, load_model, save_model

CONFIGS = Path(__file__).parents[2] / "configs"
X, T, LATENT, WIDTHS = 32, 1, 128, (32, 64, 128, 256, 512)
"""Of the presets: covariates, treatments, dimensions of z, channels from the image's resolution to the bottom."""
DEAD_HEAD = 5 * 5 * 32 * 3 + 3
"""Parameters of a second 5×5 head, for a log-variance that the original never used."""
DEAD_PRIOR = (33 * 256 + 256) + 2 * (256 * 256 + 256)
"""Parameters of its prior of hidden 256, which never trained, taken as two hidden layers from x and t to 2 · 128."""


def convolution(channels_in: int, channels_out: int, side: int = 3) -> int:
    return channels_in * channels_out * side**2 + channels_out


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def bottleneck(channels: int) -> int:
    inside = channels // 2
    return 2 * channels + convolution(channels, inside) + 2 * inside + convolution(inside, channels)


def resampling(channels_in: int, channels_out: int, main: int) -> int:
    both = 2 * channels_in + convolution(channels_in, channels_out + main)
    return both + 2 * main + convolution(main, channels_out)


def encoder_layers(size: int) -> Iterator[int]:
    """What each part of the encoder has to learn, by hand."""
    yield convolution(3 + X + T, WIDTHS[0])
    for channels_in, channels_out in itertools.pairwise(WIDTHS):
        yield resampling(channels_in, channels_out, channels_out // 2)
    yield bottleneck(WIDTHS[-1])
    for _ in ("mean", "log-variance"):
        yield convolution(WIDTHS[-1], LATENT, 1) + dense(LATENT * (size // 16) ** 2, LATENT)


def decoder_layers(size: int) -> Iterator[int]:
    """What each part of the decoder has to learn, by hand."""
    yield dense(LATENT + T, LATENT * (size // 16) ** 2)
    yield convolution(LATENT, WIDTHS[-1], 1)
    yield bottleneck(WIDTHS[-1])
    for channels_in, channels_out in itertools.pairwise(WIDTHS[::-1]):
        yield resampling(channels_in, channels_out, channels_in // 2)
    yield convolution(WIDTHS[0], 3, 5)


def preset(size: int) -> Config:
    return load_config([CONFIGS / f"original-{size}.yml"])


def built(config: ModelConfig, size: int, device: str = "meta") -> IntactVAE:
    names = [f"x{index}" for index in range(X)]
    roles = AttributeRoles(
        treatments=(Attribute("t", "binary"),),
        covariates=tuple(Attribute(name, "binary") for name in names),
    )
    with torch.device(device):
        return IntactVAE(config, roles, size, 3)


def parameters(*modules: nn.Module) -> list[int]:
    """Of each module that has any."""
    counts = [sum(p.numel() for p in module.parameters()) for module in modules]
    return [count for count in counts if count]


@pytest.mark.parametrize(("size", "total", "reported"), [(64, 13_566_403, 13.7), (128, 15_937_987, 16.1)])
def test_every_layer_of_the_presets_has_the_original_s_parameters(
    size: int, total: int, reported: float
) -> None:
    config = preset(size)
    assert len(config.data.covariates) == X and len(config.data.treatment) == T
    model = built(config.model, size)
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, OriginalEncoder) and isinstance(decoder, OriginalDecoder)
    assert parameters(*encoder.body, encoder.mean, encoder.log_variance) == list(encoder_layers(size))
    assert parameters(decoder.root, *decoder.body) == list(decoder_layers(size))
    assert sum(encoder_layers(size)) + sum(decoder_layers(size)) == total
    assert sum(p.numel() for p in model.parameters()) == total, "no prior, and no attribute predictor"
    # What the original had besides: what it reported is that too.
    assert round((total + DEAD_HEAD + DEAD_PRIOR) / 1e6, 1) == reported
    assert round((total + DEAD_HEAD) / 1e6, 1) < reported, "the head alone does not explain it"


@pytest.mark.parametrize(("size", "reported"), [(64, 6.37), (128, 25.5)])
def test_the_presets_have_the_original_s_arithmetic(size: int, reported: float) -> None:
    model = built(preset(size).model, size)
    y_BCHW = torch.rand(2, 3, size, size, device="meta")
    x_BX, t_BT, noise_BZ = (torch.zeros(2, n, device="meta") for n in (X, T, LATENT))
    with FlopCounterMode(display=False) as counter:
        output = model(y_BCHW, x_BX, t_BT, noise_BZ)
        output.likelihood.negative_log_likelihood(y_BCHW).mean().backward()
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(reported, rel=2e-3)


def test_its_normalisation_has_its_epsilon() -> None:
    for norm, kind in (("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        config = preset(64).model.model_copy(update={"norm": norm})
        found = [module for module in built(config, 64).modules() if isinstance(module, kind)]
        # Two in each block: one at the bottom and four that resample, on either side.
        assert len(found) == 2 * 2 * 5
        assert {module.eps for module in found} == {1e-4}
        assert norm == "batch" or {module.num_groups for module in found} == {8}


def test_deep_is_one_more_block_at_each_resolution_above_the_bottom() -> None:
    deep = built(preset(64).model.model_copy(update={"deep": True}), 64)
    for body in (deep.encoder.body, deep.decoder.body):
        found = [block for block in body if isinstance(block, BottleneckBlock)]
        widths = sorted(block.layers[1].in_channels for block in found)
        assert widths == list(WIDTHS)
    more = 2 * sum(bottleneck(width) for width in WIDTHS[:-1])
    assert sum(p.numel() for p in deep.parameters()) == 13_566_403 + more


def test_blocks_are_at_the_lowest_resolution_alone(make_model: Callable[..., IntactVAE]) -> None:
    one, three = (make_model(network="original", blocks=blocks) for blocks in (1, 3))
    sides: list[int] = []
    for block in three.modules():
        if isinstance(block, BottleneckBlock):
            block.register_forward_hook(lambda _module, _given, out: sides.append(out.shape[-1]))
    three(torch.rand(2, 3, 16, 16), torch.zeros(2, 2), torch.zeros(2, 1), torch.zeros(2, 4))
    assert sides == [4] * 6
    more = sum(p.numel() for p in three.parameters()) - sum(p.numel() for p in one.parameters())
    assert more == 4 * bottleneck(2 * 8 * 2)


@pytest.mark.parametrize(("size", "channels"), [(16, 3), (32, 1), (48, 3)])
@pytest.mark.parametrize("stages", [[1], [1, 2], [2, 3, 1]])
def test_shapes_whatever_the_image_and_the_stages(
    make_model: Callable[..., IntactVAE], size: int, channels: int, stages: list[int]
) -> None:
    model = make_model(size, channels, network="original", stages=stages, width=4)
    y_BCHW = torch.rand(2, channels, size, size)
    output = model(y_BCHW, torch.zeros(2, 2), torch.zeros(2, 1), torch.zeros(2, 4))
    assert output.posterior.mean_BZ.shape == output.posterior.log_std_BZ.shape == (2, 4)
    assert output.likelihood.mean_BCHW.shape == y_BCHW.shape
    assert output.likelihood.mean_BCHW.dtype == output.posterior.mean_BZ.dtype == torch.float32
    assert output.likelihood.mean_BCHW.min() > 0 and output.likelihood.mean_BCHW.max() < 1


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
@pytest.mark.parametrize("activation", ["silu", "elu", "relu"])
@pytest.mark.parametrize(
    "more", [{}, {"deep": True}, {"blocks": 2}, {"sigma": "pixel"}, {"sigma": "channel"}]
)
def test_every_parameter_is_used(
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, Tensor, Tensor]],
    norm: str,
    activation: str,
    more: dict[str, Any],
) -> None:
    model = make_model(perturbed=True, network="original", norm=norm, activation=activation, **more).train()
    y_BCHW, x_BX, t_BT = photos(4)
    output = model(y_BCHW, x_BX, t_BT, torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    output.likelihood.negative_log_likelihood(y_BCHW).mean().backward()
    for name, parameter in [*model.encoder.named_parameters(), *model.decoder.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias straight before batch normalisation is subtracted again; nothing else may be dead.
        if norm != "batch":
            assert parameter.grad.abs().max() > 0, name


def test_attributes_enter_the_encoder_as_constant_planes_covariates_first(
    make_model: Callable[..., IntactVAE], photos: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> None:
    model = make_model(perturbed=True, network="original")
    y_BCHW, x_BX, t_BT = photos(4)
    given: list[Tensor] = []
    model.encoder.body[0].register_forward_pre_hook(lambda _module, tensors: given.append(tensors[0]))
    before = model.encode(y_BCHW, x_BX, t_BT)
    image_BCHW, planes_BAHW = given[0].split([3, 3], dim=1)
    assert torch.equal(image_BCHW, 2 * y_BCHW - 1)
    standard_BA = torch.cat([model.standardise_x(x_BX), model.standardise_t(t_BT)], dim=1)
    assert torch.equal(planes_BAHW, standard_BA[:, :, None, None].expand_as(planes_BAHW))
    for moved in (model.encode(y_BCHW, x_BX, 1 - t_BT), model.encode(y_BCHW, x_BX + 1, t_BT)):
        assert (moved.mean_BZ - before.mean_BZ).abs().max() > 1e-4
        assert (moved.log_std_BZ - before.log_std_BZ).abs().max() > 1e-4
    # Nothing else of the encoder knows them.
    with torch.no_grad():
        model.encoder.body[0].weight[:, 3:] = 0
    blind, also = model.encode(y_BCHW, x_BX, t_BT), model.encode(y_BCHW, x_BX + 1, 1 - t_BT)
    assert torch.equal(blind.mean_BZ, also.mean_BZ) and torch.equal(blind.log_std_BZ, also.log_std_BZ)


def test_the_encoder_s_second_head_is_a_log_variance(
    make_model: Callable[..., IntactVAE], photos: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> None:
    model = make_model(perturbed=True, network="original")
    given = photos(4)
    before = model.encode(*given).log_std_BZ
    with torch.no_grad():
        model.encoder.log_variance[-1].bias += 0.5
    torch.testing.assert_close(model.encode(*given).log_std_BZ, before + 0.25)


def test_t_reaches_the_decoder_beside_z_and_nowhere_else(make_model: Callable[..., IntactVAE]) -> None:
    several = AttributeRoles(
        treatments=(Attribute("Young", "binary"), Attribute("Smiling", "binary")),
        covariates=(Attribute("Male", "binary"),),
    )
    model = make_model(perturbed=True, assigned=several, network="original")
    decoder, z_BZ = model.decoder, torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert decoder.root.in_features == 4 + 2
    x_BX, t_BT = torch.zeros(2, 1), torch.zeros(2, 2)
    before_BCHW = model.decode(z_BZ, t_BT, x_BX).mean_BCHW
    for column in range(2):
        moved_BT = t_BT.clone()
        moved_BT[:, column] = 1
        assert (model.decode(z_BZ, moved_BT, x_BX).mean_BCHW - before_BCHW).abs().max() > 1e-3
    assert torch.equal(model.decode(z_BZ, t_BT, x_BX + 5).mean_BCHW, before_BCHW), "no covariate does"
    with torch.no_grad():
        decoder.root.weight[:, 4:] = 0
    blind = [model.decode(z_BZ, t, x_BX).mean_BCHW for t in (t_BT, t_BT + 3)]
    assert torch.equal(*blind)


def test_the_network_alone_says_what_it_implies(make_config: Callable[..., Config]) -> None:
    model = make_config(model={"network": "original"}).model
    assert {key: getattr(model, key) for key in ORIGINAL_NETWORK} == ORIGINAL_NETWORK
    assert (model.places, model.grids) == (0, ())
    assert Config.model_validate(make_config(model={"network": "original"}).model_dump()).model == model


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"decoder": "layered"}, "paints pixels directly: model.decoder cannot be 'layered'"),
        ({"treatment_input": "film"}, "is given t alongside z: model.treatment_input cannot be 'film'"),
        ({"x_in_decoder": True}, "gives its decoder no covariates: model.x_in_decoder cannot be true"),
        ({"scales": [1, 4]}, r"has a z that is a vector: model.scales cannot be \[1, 4\]"),
        ({"place_latents": 2}, "model.place_latents: only the layers of model.decoder 'layered' have places"),
    ],
)
def test_what_it_does_not_have_is_refused(
    make_config: Callable[..., Config], setting: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make_config(model={"network": "original"} | setting)


def test_a_file_keeps_it_and_one_that_names_no_network_is_ours(
    tmp_path: Path,
    roles: AttributeRoles,
    make_config: Callable[..., Config],
    make_model: Callable[..., IntactVAE],
    photos: Callable[..., tuple[Tensor, Tensor, Tensor]],
) -> None:
    given, identity = photos(2), {"name": "n", "path": "p", "fingerprint": "f"}
    for network, kind in (("original", OriginalEncoder), ("residual", DividedEncoder)):
        model = make_model(perturbed=True, network=network)
        config = make_config(model={"network": network, "prior": "xt"})
        card = ModelCard(config, roles, Preprocessing(16).to_dict(), 0, identity, [])
        file = tmp_path / f"{network}.safetensors"
        save_model(model, card, file)
        if network == "residual":
            with_card(
                file, lambda values: [values["config"]["model"].pop(key) for key in ("network", "deep")]
            )
        stored = load_model(file)
        assert isinstance(stored.model.encoder, kind)
        assert torch.equal(stored.model.encode(*given).mean_BZ, model.encode(*given).mean_BZ)
