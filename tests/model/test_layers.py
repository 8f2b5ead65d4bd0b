"""The layered decoder: masks that know no treatment, looks that do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from civae_core.config.schema import ModelConfig
from civae_core.model import Decoder
from civae_core.model.layers import Layers

LATENT, TREATMENTS, COVARIATES = 5, 1, 2


def layered(size: int = 16, channels: int = 3, **values: Any) -> Decoder:
    small = {"latent": LATENT, "width": 8, "stages": [1, 2], "decoder": "layered", "layers": 4}
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
    layers = Layers(ModelConfig(latent=LATENT, layers=3, layer_grid=1), 2, TREATMENTS)
    z_BZ, t_BT = draw(2, LATENT), draw(2, TREATMENTS)
    logits_BKHW = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    looks_BKC = layers.appearance(torch.cat([z_BZ, layers.condition(t_BT)], dim=1)).view(2, 3, 2)
    m_BKHW = logits_BKHW.exp() / logits_BKHW.exp().sum(1, keepdim=True)
    expected_BCHW = (m_BKHW[:, :, None] * looks_BKC[..., None, None]).sum(1)
    torch.testing.assert_close(layers(logits_BKHW, z_BZ, t_BT), expected_BCHW)


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
    layers = Layers(ModelConfig(latent=LATENT, layers=2, layer_grid=2), 1, TREATMENTS)
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
