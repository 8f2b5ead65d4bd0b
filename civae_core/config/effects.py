"""Settings that have no effect because of another setting, which deserve a warning."""

from civae_core.config.schema import Config, LossConfig, ModelConfig, TrainConfig

_OFF = (None, "none")


def without_effect(config: Config) -> list[str]:
    """Messages about settings that differ from their defaults but have no effect, each with the reason.

    Settings at their defaults are not reported, so that a config that spells out every key causes no warnings.
    Nor are those that switch off what is off anyway.
    """
    defaults = {"model": ModelConfig(), "loss": LossConfig(), "train": TrainConfig()}
    idle = (
        ("model", "prior_hidden", config.model.prior == "standard", "N(0,I) has no network"),
        ("model", "prior_structure", *_no_join(config)),
        (
            "model",
            "x_in_decoder",
            not config.data.covariates and config.model.network != "original",  # which sets it to false
            "there are no covariates",
        ),
        ("model", "block", config.model.network == "original", "`model.network: original` has its own"),
        ("model", "deep", config.model.network != "original", "only `model.network: original` has it"),
        ("model", "scale_latents", not config.model.grids, "model.scales has no grid"),
        (
            "model",
            "sigma",
            bool(config.model.grids) and config.model.decoder == "layered" and config.model.sigma == "pixel",
            "with model.scales a layered picture has one σ for all its pixels",
        ),
        ("model", "layers", config.model.decoder == "direct", "model.decoder is direct"),
        ("model", "layer_grid", config.model.decoder == "direct", "model.decoder is direct"),
        ("model", "mask_width", *_no_mask(config)),
        (
            "model",
            "latent_mask_width",
            config.model.prior != "xt",
            "only `model.prior: xt` moves with the treatment",
        ),
        (
            "model",
            "looks_mask_width",
            config.model.looks is None,
            "it masks looks that are separate from places, under `model.prior: xt`",
        ),
        ("loss", "beta_grids", not config.model.grids, "model.scales has no grid"),
        ("train", "pairing_images", not config.model.turned, "no latent noises are paired"),
        ("loss", "weight_cap", config.loss.weights == "none", "loss.weights is none"),
        ("loss", "arm_balance", config.model.prior != "xt", "only `model.prior: xt` differs between arms"),
        ("loss", "free_bits", config.loss.beta == 0, "loss.beta is 0"),
    )
    return [
        f"{section}.{key} has no effect: {reason}"
        for section, key, is_idle, reason in idle
        if is_idle and getattr(getattr(config, section), key) not in (getattr(defaults[section], key), *_OFF)
    ]


def within_parts(config: Config, world_size: int) -> list[str]:
    """Messages about settings for which part of a batch gives another step than the whole batch, with reasons.

    A part is what is computed at once: a process's share of a batch, in `train.accumulate` parts. `auto` counts as
    several parts of unknown size.

    Args:
        world_size: number of processes, each with an equal share of a batch.
    """
    accumulate = config.train.accumulate
    images = config.train.batch_size // (world_size * (1 if accumulate == "auto" else accumulate))
    part = _part_of_a_batch(world_size, accumulate != 1)
    if images == 1:
        return _within_one_image(config, part)
    if world_size == accumulate == 1:
        return []
    found = []
    if config.loss.hsic:
        found.append(f"loss.hsic is measured within {part}, not over all of it")
    if config.loss.free_bits:
        found.append(f"loss.free_bits averages over {part}, not over all of it")
    found += [
        f"loss.{name} chooses other treatments within {part}: which of several changes, and what a continuous one "
        "becomes, depend on the place there"
        for name in _ask_other_arm(config)
    ]
    if config.model.norm == "batch":
        found.append(f"model.norm batch normalises within {part}")
    return found


def _part_of_a_batch(world_size: int, in_parts: bool) -> str:
    if world_size == 1:
        return "each part of a batch (train.accumulate)" if in_parts else "a batch"
    share = "share of a batch"
    return f"each part (train.accumulate) of a process's {share}" if in_parts else f"each process's {share}"


def _within_one_image(config: Config, part: str) -> list[str]:
    """As `within_parts`, if single images are computed at once."""
    found = []
    if config.loss.hsic:
        found.append(f"loss.hsic has no effect: it compares images, and {part} is one image")
    if config.loss.free_bits:
        found.append(f"loss.free_bits applies to each image, not to a mean over images: {part} is one image")
    found += [
        f"loss.{name} changes only the first treatment, and none that is continuous: {part} is one image"
        for name in _ask_other_arm(config)
    ]
    if config.model.norm == "batch":
        found.append(f"model.norm batch normalises each image by itself: {part} is one image")
    return found


def _ask_other_arm(config: Config) -> list[str]:
    return [name for name in ("arm_balance", "reencode", "guidance") if getattr(config.loss, name)]


def _no_mask(config: Config) -> tuple[bool, str]:
    """Whether no mask fades the pixel noise, and why."""
    if config.objective == "original":
        return True, "`objective: original` adds all of the pixel noise back"
    return config.model.noise_mask == "none", "model.noise_mask is none"


def _no_join(config: Config) -> tuple[bool, str]:
    """Whether the prior does not combine x and t, and why."""
    if config.model.prior != "xt":
        return True, "only `model.prior: xt` joins x and t"
    return not config.data.covariates, "there are no covariates"
