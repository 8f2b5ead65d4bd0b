"""Places and looks: masks that know no treatment, looks that do, and codes of places read off contours."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from civae_core.config.schema import Config, ModelConfig
from civae_core.model import Decoder
from civae_core.model.encoder import DividedEncoder, contours, make_vector_encoder
from civae_core.model.layers import Layers, bilinear

LATENT, TREATMENTS, COVARIATES = 5, 1, 2


def layered(size: int = 16, channels: int = 3, **values: Any) -> Decoder:
    small = {
        "latent": LATENT,
        "width": 8,
        "stages": [1, 2],
        "decoder": "layered",
        "layers": 4,
        "place_latents": 0,
    }
    decoder = Decoder(ModelConfig(**small | values), size, channels, TREATMENTS, COVARIATES)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return decoder


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return draw(batch, LATENT), draw(batch, TREATMENTS, seed=1), draw(batch, COVARIATES, seed=2)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3), (64, 3)])
@pytest.mark.parametrize("grid", [1, 4])
def test_shapes(size: int, channels: int, grid: int) -> None:
    p = layered(size, channels, layer_grid=grid)(*inputs())
    assert p.mean_BCHW.shape == (4, channels, size, size)
    assert p.mean_BCHW.dtype == torch.float32


def test_the_image_is_the_masked_sum_of_the_interpolated_looks() -> None:
    layers = Layers(ModelConfig(latent=LATENT, layers=3, layer_grid=1, place_latents=0), 2, TREATMENTS)
    z_BZ, t_BT = draw(2, LATENT), draw(2, TREATMENTS)
    logits_BKHW = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    looks_BKC = layers.appearance(torch.cat([z_BZ, layers.condition(t_BT)], dim=1)).view(2, 3, 2)
    m_BKHW = logits_BKHW.exp() / logits_BKHW.exp().sum(1, keepdim=True)
    expected_BCHW = (m_BKHW[:, :, None] * looks_BKC[..., None, None]).sum(1)
    torch.testing.assert_close(layers(logits_BKHW, z_BZ, t_BT), expected_BCHW)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_layers_of_one_colour_still_make_an_image_of_that_colour(
    dtype: torch.dtype,
) -> None:
    layers = Layers(ModelConfig(latent=LATENT, layers=5, layer_grid=4, place_latents=0), 3, TREATMENTS)
    last = layers.appearance[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image_BCHW = layers(draw(2, 5, 16, 16).bfloat16(), draw(2, LATENT), draw(2, TREATMENTS))
    torch.testing.assert_close(image_BCHW, torch.full((2, 3, 16, 16), 0.25), atol=1e-6, rtol=0)


def test_masks_do_not_know_the_treatment_and_looks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = layered()
    assert decoder.layers is not None
    seen = []
    monkeypatch.setattr(decoder.layers, "forward", lambda drawn, z, a: (seen.append(drawn), drawn[:, :3])[1])
    z_BZ, t_BT, x_BX = inputs()
    decoder(z_BZ, t_BT, x_BX)
    decoder(z_BZ, 1 - t_BT, x_BX)
    decoder(z_BZ, t_BT, 1 - x_BX)
    assert torch.equal(seen[0], seen[1])
    assert (seen[0] - seen[2]).abs().max() > 1e-3
    monkeypatch.undo()
    difference = decoder(z_BZ, t_BT, x_BX).mean_BCHW - decoder(z_BZ, 1 - t_BT, x_BX).mean_BCHW
    assert difference.abs().max() > 1e-3


def test_only_masks_draw_edges() -> None:
    """With one layer switched on everywhere, the image is as smooth as its grid of colours."""
    layers = Layers(ModelConfig(latent=LATENT, layers=2, layer_grid=2, place_latents=0), 1, TREATMENTS)
    on_BKHW = torch.tensor([50.0, -50.0])[None, :, None, None].expand(1, 2, 9, 9)
    image = layers(on_BKHW, draw(1, LATENT), draw(1, TREATMENTS))[0, 0]
    for along in (image, image.T):
        torch.testing.assert_close(along.diff(n=2, dim=0), torch.zeros(7, 9), rtol=0, atol=1e-5)


def test_without_x_in_decoder_neither_masks_nor_looks_know_the_covariates() -> None:
    decoder = layered(x_in_decoder=False)
    z_BZ, t_BT, x_BX = inputs()
    assert torch.equal(decoder(z_BZ, t_BT, x_BX).mean_BCHW, decoder(z_BZ, t_BT, 1 - x_BX).mean_BCHW)


def test_a_map_of_sigma_stands_beside_the_layers() -> None:
    p = layered(sigma="pixel")(*inputs())
    assert p.log_sigma.shape == p.mean_BCHW.shape == (4, 3, 16, 16)
    assert p.log_sigma.std() > 1e-3


def test_every_parameter_is_used() -> None:
    decoder = layered()
    decoder(*inputs()).negative_log_likelihood(draw(4, 3, 16, 16)).mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert nn.utils.get_total_norm([parameter.grad]) > 0, name


def test_divided_places_draw_the_masks_and_looks_paint_them(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = layered(place_latents=2)
    assert decoder.layers is not None
    seen = []
    forward = decoder.layers.forward
    monkeypatch.setattr(
        decoder.layers, "forward", lambda drawn, z, a: (seen.append((drawn, z)), forward(drawn, z, a))[1]
    )
    z_BZ, t_BT, x_BX = inputs()
    for moved in (z_BZ, z_BZ + torch.tensor([1.0, 1, 0, 0, 0]), z_BZ + torch.tensor([0.0, 0, 1, 1, 1])):
        decoder(moved, t_BT, x_BX)
    (drawn, looks), (drawn_places, looks_places), (drawn_looks, looks_looks) = seen
    assert torch.equal(looks, looks_places)
    assert torch.equal(drawn, drawn_looks)
    assert (drawn - drawn_places).abs().max() > 1e-3
    assert looks_looks.shape == (4, LATENT - 2)


def test_contours_do_not_tell_which_side_is_lighter_and_hardly_how_much() -> None:
    image = torch.full((1, 1, 16, 16), 0.2)
    image[..., 8:] = 0.9
    faint = 0.5 + 0.3 * (image - 0.5)
    edge = contours(image)[0, 0]
    torch.testing.assert_close(contours(1 - image), contours(image))
    assert edge[:, 7:9].min() > 0.8
    assert contours(faint)[0, 0, :, 7:9].min() > 0.6
    assert edge[:, :6].max() < 0.05
    torch.testing.assert_close(contours(image.mT), contours(image).mT)


def test_contours_have_a_finite_gradient_on_a_flat_image() -> None:
    flat = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    contours(flat).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_code_of_places_sees_contours_only() -> None:
    config = ModelConfig(latent=LATENT, width=8, stages=[1, 2], decoder="layered", place_latents=2)
    encoder = make_vector_encoder(config, 16, 3, TREATMENTS + COVARIATES)
    assert isinstance(encoder, DividedEncoder)
    y_BCHW, (_, t_BT, x_BX) = draw(4, 3, 16, 16, seed=5), inputs()
    one, inverted = encoder(y_BCHW, x_BX, t_BT), encoder(1 - y_BCHW, x_BX, t_BT)
    assert one.mean_BZ.shape == one.log_std_BZ.shape == (4, LATENT)
    torch.testing.assert_close(one.mean_BZ[:, :2], inverted.mean_BZ[:, :2])
    assert (one.mean_BZ[:, 2:] - inverted.mean_BZ[:, 2:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"decoder": "direct", "place_latents": 2}, "only the layers of model.decoder 'layered' have places"),
        ({"decoder": "layered", "latent": 4, "place_latents": 4}, "leaves none of model.latent 4 for looks"),
        ({"treatment_input": "concat"}, "a layered one gives t only to looks"),
    ],
)
def test_settings_that_cannot_be_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config.model_validate({"data": {"path": "d", "treatment": "T"}, "model": values})


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_looks_are_interpolated_as_torch_does(grid: int) -> None:
    weights_SG = bilinear(9, grid, like=torch.zeros(()))
    grid_GG = draw(grid, grid, seed=7)
    expected = F.interpolate(grid_GG[None, None], size=(9, 9), mode="bilinear", align_corners=True)[0, 0]
    torch.testing.assert_close(weights_SG @ grid_GG @ weights_SG.T, expected)


def test_half_of_z_is_places_unless_said_otherwise() -> None:
    assert ModelConfig(latent=9).places == 4
    assert ModelConfig(latent=9, place_latents=0).places == 0
    assert ModelConfig(latent=9, decoder="direct").places == 0
