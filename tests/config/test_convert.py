"""The original project's config in ours: every key, the β that kl_scale meant, and refusals."""

from pathlib import Path

import pytest
import torch
import yaml

from civae_core.config import ConfigError, Converted, convert_file, load_config
from civae_core.config.convert import beta_of
from civae_core.config.schema import ORIGINAL_SIGMA
from civae_core.model import ModelOutput
from civae_core.model.decoder import PixelNormal
from civae_core.model.distributions import DiagonalNormal, standard_normal
from civae_core.objective import negative_elbo, original_loss

OLD = """
data_dir: ../data
save_dir: .
norm_type: gn
nepoch: 10
image_size: 128
ch_multi: 48
num_res_blocks: 3
gpu_index: 1
latent_channels: 96
save_interval: 3000
block_widths: 1, 2, 4, 8
lr: 0.0003
kl_scale: 1e-4
deep_model: 1
treatment:
  Male: 20
model_labels:
  Bald: 4
  # Bangs: 5
  Smiling: 31
  Young: 39
"""


def convert(folder: Path, text: str, images_per_epoch: int = 162_770) -> Converted:
    path = folder / "old.yml"
    path.write_text(text, encoding="utf-8")
    return convert_file(path, images_per_epoch)


def test_every_key_has_its_counterpart(tmp_path: Path) -> None:
    config = convert(tmp_path, OLD).config
    assert config.objective == "intact"
    assert (config.model.norm, config.model.width, config.model.latent) == ("group", 48, 96)
    assert (config.model.network, config.model.activation) == ("original", "elu")
    assert (config.model.stages, config.model.blocks, config.model.deep) == ([1, 2, 4, 8], 3, True)
    assert (config.train.images, config.train.batch_size, config.train.lr) == (1_627_700, 32, 3e-4)
    assert config.train.checkpoint_every == config.train.sample_every == 96_000
    assert config.data.treatment == ["Male"]
    assert config.data.covariates == ["Smiling", "Young"]
    assert config.data.descendants == ["Bald"]
    assert config.loss.beta == pytest.approx(1e-4 * 3 * 128 * 128 / 96)
    assert config.model.sigma == "fixed"
    assert config.model.sigma_init**2 == pytest.approx(1 / 8)


def test_the_text_loads_to_the_same_config(tmp_path: Path) -> None:
    converted = convert(tmp_path, OLD)
    path = tmp_path / "new.yml"
    path.write_text(converted.text, encoding="utf-8")
    assert load_config([path]) == converted.config


def test_what_has_no_counterpart_is_said(tmp_path: Path) -> None:
    text = convert(tmp_path, OLD + "fancy: 3\n").text
    for said in (
        "--device cuda:N",
        "--out RUN",
        "fancy: not a key",
        "162,770 training images",
        "Male itself",
    ):
        assert said in " ".join(text.replace("#", " ").split())


def test_epochs_are_counted_in_the_images_given(tmp_path: Path) -> None:
    assert convert(tmp_path, OLD, images_per_epoch=600).config.train.images == 6000


def test_missing_keys_are_assumed_aloud(tmp_path: Path) -> None:
    converted = convert(tmp_path, "norm_type: bn\ntreatment: 39\nmodel_labels: [Male, 31]\n")
    assert converted.config.data.treatment == ["Young"]
    assert (converted.config.model.blocks, converted.config.model.deep) == (1, False)
    assert converted.config.data.covariates == ["Male", "Smiling"]
    assert converted.config.loss.beta == pytest.approx(0.0384)
    assert any(remark.startswith("kl_scale: not given; assumed 0.0001") for remark in converted.remarks)


def test_an_index_wins_over_a_name_that_is_not_its_own(tmp_path: Path) -> None:
    converted = convert(tmp_path, "norm_type: bn\ntreatment: {Young: 20}\n")
    assert converted.config.data.treatment == ["Male"]
    assert any("Young was given index 20, which is Male" in remark for remark in converted.remarks)


def test_bad_values_are_reported_together_at_their_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(tmp_path, "norm_type: xx\nnepoch: ten\nblock_widths: 1, b\ntreatment: {Young: 99}\nlr: 0\n")
    lines = [line.split("old.yml:")[1] for line in caught.value.problems]
    assert sorted(lines) == [
        "1:12: norm_type: should be bn or gn, not 'xx'",
        "2:9: nepoch: should be a whole number from 1 to 1,000,000,000, not 'ten'",
        "3:15: block_widths: should be whole numbers such as 1, 2, 4, 8, not '1, b'",
        "4:12: treatment: should give CelebA indices from 0 to 39, not 99",
        "5:5: lr: should be a number above 0, not 0",
    ]


def test_a_config_of_ours_is_not_the_originals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has none of the original project's keys"):
        convert(tmp_path, yaml.safe_dump({"data": {"path": "x"}}))


def test_gradients_of_the_two_losses_are_proportional() -> None:
    """C·H·W times the gradient of the original's loss is the gradient of ours at σ² = 1/8 and that β."""
    generator = torch.Generator().manual_seed(0)
    batch, channels, size, latent, kl_scale = 4, 3, 8, 5, 0.3
    y_BCHW = torch.rand(batch, channels, size, size, generator=generator)
    f_BCHW = torch.rand(batch, channels, size, size, generator=generator).requires_grad_()
    mean_BZ = torch.randn(batch, latent, generator=generator).requires_grad_()
    log_std_BZ = torch.randn(batch, latent, generator=generator).requires_grad_()
    output = ModelOutput(
        posterior=DiagonalNormal(mean_BZ, log_std_BZ),
        prior=standard_normal(batch, latent, y_BCHW),
        likelihood=PixelNormal(f_BCHW, torch.tensor(ORIGINAL_SIGMA).log()),
        predicted_BA=None,
    )
    variables = [f_BCHW, mean_BZ, log_std_BZ]
    ours = torch.autograd.grad(
        negative_elbo(y_BCHW, output, beta_of(kl_scale, size, latent, channels)).loss, variables
    )
    # The original's own formula, on [-1,1] images, rather than our function for it.
    kl_BZ = -0.5 * (1 + 2 * log_std_BZ - mean_BZ.square() - (2 * log_std_BZ).exp())
    original = ((2 * y_BCHW - 1) - (2 * f_BCHW - 1)).square().mean() + kl_scale * kl_BZ.mean()
    theirs = torch.autograd.grad(original, variables)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, channels * size * size * other)
    assert original_loss(y_BCHW, output, kl_scale).loss.item() == pytest.approx(original.item(), rel=1e-5)
