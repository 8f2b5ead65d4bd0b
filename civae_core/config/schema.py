"""The config, by concern. The sentence under a field is its help text, its schema description and its docs.

Every count of training progress is in images, so that a batch size can change without touching the rest.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)


class ConflictError(ValueError):
    """Settings that are each allowed and do not go together: a sentence for each conflict."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _no_name_twice(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} appears twice")
    return names


def _auto_if_none(value: object) -> object:
    return "auto" if value is None else value  # configs used to say null


_NAMES_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Names = Annotated[list[str], BeforeValidator(_one_or_many), WithJsonSchema(_NAMES_SCHEMA)]
Tracker = Literal["tensorboard", "wandb"]
_TRACKER_SCHEMA = {"enum": list(get_args(Tracker))}
_TRACKERS_SCHEMA = {"type": "array", "items": _TRACKER_SCHEMA, "uniqueItems": True}
Trackers = Annotated[
    list[Tracker],
    BeforeValidator(_one_or_many),
    AfterValidator(_no_name_twice),
    WithJsonSchema({"anyOf": [_TRACKER_SCHEMA, _TRACKERS_SCHEMA]}),
]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0, le=10**15)]
CountOrZero = Annotated[int, Field(ge=0, le=10**15)]
NonNegative = Annotated[float, Field(ge=0)]
Units = Annotated[int, Field(gt=0, le=65_536)]
"""Of one layer of a network: beyond what anyone trains, and still no allocation without bounds."""


MOST_DIMENSIONS = 65_536
"""Of z, over all its scales."""

NoiseMask = Literal["none", "fade"]


class Section(BaseModel):
    """A strict, immutable part of the config."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataConfig(Section):
    """The prepared images, and the role of each attribute."""

    path: str
    """Folder written by `civae prepare-data`."""
    treatment: Names
    """Attributes that are intervened on: one or several, binary or continuous."""
    covariates: Names = []
    """Attributes that the treatment does not change and that the model conditions on."""
    descendants: Names = []
    """Attributes that the treatment itself may change. Never a model input; reported, and free to change."""
    flip: bool = True
    """Mirror training images at random."""
    cache: Literal["mmap", "ram", "device"] = "mmap"
    """Read images through the page cache, or first copy the training split into RAM or onto the device."""
    shuffle: Literal["full", "blocks"] = "full"
    """Order of an epoch: fully shuffled, or shuffled within windows of 65,536 images, for data larger than memory."""

    @model_validator(mode="after")
    def _roles_are_disjoint(self) -> "DataConfig":
        if found := list(self._conflicts()):
            raise ConflictError(found)
        return self

    def _conflicts(self) -> Iterator[str]:
        roles = {"treatment": self.treatment, "covariates": self.covariates, "descendants": self.descendants}
        if not self.treatment:
            yield "treatment: needs at least one attribute"
        seen: dict[str, str] = {}
        for role, names in roles.items():
            for name in names:
                if seen.get(name) == role:
                    yield f"{name!r} appears twice in {role}"
                elif name in seen:
                    yield f"{name!r} cannot be both in {seen[name]} and in {role}"
                seen.setdefault(name, role)


ORIGINAL_NETWORK: dict[str, Any] = {
    "decoder": "direct",
    "treatment_input": "concat",
    "x_in_decoder": False,
}
"""What `model.network: original` means for keys that offer more than it has."""


class ModelConfig(Section):
    """The network: encoder, decoder and prior (docs/method.md)."""

    network: Literal["residual", "original"] = "residual"
    """Our encoder and decoder, or the original project's: attributes are planes beside the image, t is beside z."""
    prior: Literal["xt", "x", "standard"] = "xt"
    """The prior of z: learned p(z|x,t), balanced p(z|x), or N(0,I). The baselines' objectives require N(0,I)."""
    latent: Units = 64
    """Dimensions of z. With `scales`, dimensions of its vector only."""
    scales: (
        Annotated[list[Annotated[int, Field(gt=0, le=4_096)]], Field(min_length=1, max_length=4)] | None
    ) = None
    """Side lengths of the scales of z: 1 for the vector, then grids, as in [1, 4, 8]. Default: the vector alone."""
    scale_latents: Annotated[int, Field(gt=0, le=1_024)] = 4
    """Number of latents at each position of a grid of `scales`."""
    width: Annotated[int, Field(gt=0, le=4_096)] = 32
    """Base number of channels, which `stages` multiplies."""
    stages: Annotated[list[Annotated[int, Field(gt=0, le=256)]], Field(min_length=1, max_length=10)] = [
        1,
        2,
        4,
        4,
    ]
    """Channel multiplier of each stage. Every stage halves the resolution, in our network first by space-to-depth."""
    blocks: Annotated[int, Field(gt=0, le=64)] = 1
    """Residual blocks in each stage; with `network: original`, at the lowest resolution only."""
    block: Literal["basic", "inverted"] = "basic"
    """Two 3×3 convolutions, or 1×1 to twice the width, depthwise 3×3, 1×1 back, with fewer parameters."""
    deep: bool = False
    """Add a residual block at each resolution of `network: original` (its deep_model)."""
    norm: Literal["group", "batch", "none"] = "group"
    """Normalisation inside the residual blocks."""
    activation: Literal["silu", "elu", "relu"] = "silu"
    """Non-linearity."""
    treatment_input: Literal["film", "concat"] = "film"
    """How t enters the decoder: as scale and shift in every block, or as scalars beside z, as in the original."""
    decoder: Literal["direct", "layered"] = "layered"
    """What paints the image: a network given t, or layers whose looks depend on t and whose places do not."""
    layers: Annotated[int, Field(ge=2, le=256)] = 12
    """Number of layers of a layered decoder."""
    layer_grid: Annotated[int, Field(gt=0, le=64)] = 4
    """Side length of each layer's grid of colours. A fine grid can draw what should be a layer of its own."""
    place_latents: Annotated[int, Field(ge=0)] | None = None
    """Dimensions of z, read off contours, that only place a decoder's layers; 0: none. Default: half of `latent`."""
    x_in_decoder: bool = True
    """Also give the covariates to the decoder, p(y|z,t,x), which departs from (M2)."""
    prior_hidden: Units = 128
    """Hidden units of the prior's network."""
    prior_structure: Literal["free", "additive", "low_rank"] = "free"
    """How p(z|x,t) combines x and t: freely, as a sum of one part each, or as that plus an interaction of rank 2."""
    sigma: Literal["scalar", "channel", "pixel", "fixed"] = "scalar"
    """σ of the decoder's Gaussian: one learned number, one per channel, a learned map over pixels, or a constant."""
    sigma_init: Annotated[float, Field(ge=0.005, le=2.0)] = 0.1
    """Initial (or fixed) σ, in units of [0,1] images. σ always stays between 0.005 and 2."""
    noise_mask: NoiseMask = "fade"
    """Whether a counterfactual's pixel noise fades where the treatment changes the image (m of M6)."""
    mask_width: Positive = 0.08
    """Image change, in units of [0,1] images, at which most of the pixel noise has faded."""
    latent_mask_width: Positive | None = 4.0
    """Shift of the prior due to t, in standard deviations, at which a latent noise has mostly faded; null: never."""
    looks_mask_width: Positive | None = 0.6
    """Image change, in units of [0,1] images, at which looks' noise has mostly faded to its mean; null: no fading."""
    pairing: Literal["none", "contours"] = "contours"
    """Latent noises of two treatments as they are, or rotated so that counterfactuals keep contours (`prior: xt`)."""
    predictor: bool = True
    """Train an attribute predictor p(x,t|y) alongside the model, for photographs without labels."""

    @model_validator(mode="before")
    @classmethod
    def _the_originals_network_is_what_it_is(cls, values: Any) -> Any:
        """Fills what the original's network leaves no choice about, where the config says nothing else."""
        if isinstance(values, dict) and values.get("network") == "original":
            return {**ORIGINAL_NETWORK, **values}
        return values

    @property
    def grids(self) -> tuple[int, ...]:
        """Sides of the grids of latents, coarse to fine; none where z is a vector."""
        return tuple(self.scales or ())[1:]

    @property
    def dimensions(self) -> int:
        """Z: the vector's and all grids' latents."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[int, int]:
        """Dimensions of each scale of z by its side, in their order."""
        return {1: self.latent} | {side: self.scale_latents * side**2 for side in self.grids}

    @property
    def turned(self) -> slice | None:
        """Dimensions of z whose noise is turned between treatments: the vector's looks, or all of an undivided one.

        None where z' = z, and where pixels are painted from grids of latents, whose noise is in its place.
        """
        painted = self.grids and self.decoder == "direct"
        on = self.pairing == "contours" and self.prior == "xt" and not painted
        return slice(self.places, self.latent) if on else None

    @property
    def looks(self) -> slice | None:
        """Dimensions of z that say how layers look, apart from places; None where z does not tell, or z' = z."""
        told = self.decoder == "layered" and self.places and self.prior == "xt"
        return slice(self.places, self.latent) if told else None

    @property
    def places(self) -> int:
        """Dimensions of z that are places; 0 where z is undivided."""
        if self.place_latents is None:
            return self.latent // 2 if self.decoder == "layered" else 0
        return self.place_latents


class LossConfig(Section):
    """The objective's settings (M4)."""

    beta: NonNegative = 5.0
    """Weight of the KL term (both terms in nats). Default for `cvae`: 1; for `original`, as kl_scale: 1e-4."""
    beta_grids: NonNegative = 0.5
    """β of the latents on the grids of `model.scales`; at the full `beta`, detail would not be worth coding."""
    beta_warmup: CountOrZero = 0
    """Images over which β rises linearly from zero."""
    weights: Literal["none", "inverse", "overlap"] = "none"
    """Weights of training images: none, stabilised inverse propensity (capped), or overlap. Baselines: none."""
    weight_cap: Annotated[float, Field(ge=1)] = 10.0
    """Largest weight, as a multiple of the mean weight."""
    adversary: NonNegative = 0.0
    """Weight of what an adversary can tell about t from the latent noise beyond x: log p(t|η,x)/p(t|x), in nats."""
    hsic: NonNegative = 0.0
    """Weight of the kernel dependence (between −1 and 1) of the latent noise, jointly with x, on t − E[t|x]."""
    arm_balance: NonNegative = 0.0
    """Weight of the symmetric KL between p(z|x,t) and p(z|x,t') of another arm. Pulls `prior: xt` towards `x`."""
    reencode: NonNegative = 0.0
    """Weight of KL(q(z'|x,y',t') ‖ the latent predicted for y'): y' should encode to what it was made from."""
    guidance: NonNegative = 0.0
    """Weight of what the model's own attribute predictor finds wrong in a counterfactual, beyond its usual error."""
    free_bits: NonNegative = 0.0
    """Nats per latent dimension, averaged over a batch, that the KL term does not charge."""


LEVERS = ("adversary", "hsic", "arm_balance", "reencode", "guidance", "free_bits")
"""Keys of the loss section that are off at zero, and that no baseline has."""


MOST_PAIRING_IMAGES = 12_800


class TrainConfig(Section):
    """Budget, optimiser and bookkeeping."""

    images: Count = 500_000
    """Length of training: total number of images shown."""
    pairing_images: Count | None = None
    """Images for pairing the noises, once all else has learned. Default: as many as `images`, at most 12,800."""
    batch_size: Annotated[int, Field(gt=0, le=2**20)] = 64
    """Images per optimiser step, over all processes."""
    accumulate: Literal["auto"] | Annotated[int, Field(gt=0, le=2**20)] = 1
    """Parts in which a process computes its batch: the same step in less memory. auto: as few as the GPU can take."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass instead of keeping them: the same step, slower, in less memory."""
    lr: Positive = 1e-3
    """Peak learning rate of AdamW."""
    lr_warmup: CountOrZero = 2_000
    """Images over which the learning rate rises linearly."""
    lr_decay: Literal["cosine", "none"] = "cosine"
    """Decay of the learning rate towards the end of training. With `none`, a run can be extended bit for bit."""
    weight_decay: NonNegative = 0.01
    """AdamW's decoupled weight decay."""
    grad_clip: Positive = 1.0
    """Maximum gradient norm, for the loss in nats per pixel and channel."""
    ema_halflife: NonNegative = 20_000
    """Half-life of the moving average of the weights, shorter at the start of training. 0 turns averaging off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast precision. auto: bf16 where the GPU supports it, otherwise fp32."""
    channels_last: Annotated[Literal["auto"] | bool, BeforeValidator(_auto_if_none)] = "auto"
    """Store images with channels innermost. auto: where the GPU computes that fast, not on the CPU."""
    compile: bool | Literal["graphs"] = False
    """Run the network through torch.compile. graphs: also replay its kernels as CUDA graphs, for small networks."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the initial weights, the order of images, flips and noise."""
    log_every: Count = 2_000
    """Images between lines of metrics.jsonl."""
    checkpoint_every: Count = 50_000
    """Images between checkpoints, each with a validation loss."""
    sample_every: Count = 50_000
    """Images between sample grids."""
    validate_images: Count = 1_000
    """Maximum number of held-out images over which a validation loss is averaged."""
    keep: Count = 3
    """Number of latest checkpoints to keep, besides the best one."""
    trackers: Trackers = []
    """Also send metrics and sample grids to `tensorboard`, `wandb` or both; each needs the extra of its name."""

    @property
    def images_to_pair(self) -> int:
        """`pairing_images`, or what it is where it is left out."""
        return min(self.images, MOST_PAIRING_IMAGES) if self.pairing_images is None else self.pairing_images


ORIGINAL_SIGMA = 0.35355339
"""√(1/8): the σ for which −log p(y|z,t) is the original's squared error of [-1,1] pixels, times a constant."""

Objective = Literal["intact", "cvae", "original"]

BASELINE_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "cvae": {"model": {"prior": "standard"}, "loss": {"beta": 1.0, "weights": "none"}},
    "original": {
        "model": {"prior": "standard", "decoder": "direct", "sigma": "fixed", "sigma_init": ORIGINAL_SIGMA},
        "loss": {"beta": 1e-4, "weights": "none"},
    },
}
"""What `objective: cvae` and `objective: original` mean beside their loss."""


class Config(Section):
    """The config of one training run."""

    objective: Objective = "intact"
    """Ours (M4), the same with N(0,I) in place of the prior, or the original project's loss and inference."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _baselines_have_their_own_defaults(cls, values: Any) -> Any:
        """Fills what a baseline is defined by, where the config says nothing else."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for section, defaults in BASELINE_DEFAULTS.get(str(values.get("objective")), {}).items():
            given = filled.get(section, {})
            if isinstance(given, BaseModel):
                given = given.model_dump(include=given.model_fields_set)
            if isinstance(given, dict):
                filled[section] = {**defaults, **given}
        return filled

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> "Config":
        if found := [*self._not_of_the_objective(), *self._not_together()]:
            raise ConflictError(found)
        return self

    def _not_of_the_objective(self) -> Iterator[str]:
        if self.objective != "intact" and self.model.prior != "standard":
            yield (
                f"objective {self.objective!r} is defined with the prior N(0,I): "
                f"model.prior cannot be {self.model.prior!r}"
            )
        if self.objective == "original" and self.loss.weights != "none":
            yield (
                f"objective 'original' counts every image once: loss.weights cannot be {self.loss.weights!r}"
            )
        if self.objective == "original" and self.model.sigma != "fixed":
            yield (
                "objective 'original' is a squared error, which fixes σ: "
                f"model.sigma cannot be {self.model.sigma!r}"
            )

    def _not_together(self) -> Iterator[str]:
        yield from self._not_of_the_network()
        if self.model.place_latents and self.model.decoder != "layered":
            yield "model.place_latents: only the layers of model.decoder 'layered' have places"
        if self.model.places >= self.model.latent:
            yield (
                f"model.place_latents {self.model.place_latents}: "
                f"leaves none of model.latent {self.model.latent} for looks"
            )
        if self.model.decoder == "layered" and self.model.treatment_input == "concat":
            yield (
                "model.treatment_input 'concat' is for model.decoder 'direct': a layered one gives t only to looks"
            )
        if self.train.accumulate != "auto" and self.train.batch_size % self.train.accumulate:
            yield (
                f"train.accumulate: {self.train.accumulate} equal parts cannot be made of "
                f"{self.train.batch_size} images"
            )
        if self.train.checkpoint_activations and self.model.norm == "batch":
            yield (
                "train.checkpoint_activations: a second forward pass would count the batch statistics of "
                "model.norm 'batch' twice"
            )
        yield from self._not_with_scales()
        yield from self._penalties_out_of_place()
        if self.loss.weights == "overlap" and len(self.data.treatment) > 8:
            yield "loss.weights: overlap weights enumerate the arms, so at most 8 treatments are allowed"

    def _not_of_the_network(self) -> Iterator[str]:
        """The original's network has one way for each of these; only ours has others."""
        if self.model.network != "original":
            return
        reasons = {
            "decoder": "paints pixels directly",
            "treatment_input": "is given t alongside z",
            "x_in_decoder": "gives its decoder no covariates",
        }
        for key, reason in reasons.items():
            if (value := getattr(self.model, key)) != ORIGINAL_NETWORK[key]:
                said = str(value).lower() if isinstance(value, bool) else repr(value)
                yield f"model.network 'original' {reason}: model.{key} cannot be {said}"
        if self.model.grids:
            yield (
                "model.network 'original' has a z that is a vector: "
                f"model.scales cannot be {self.model.scales}"
            )

    def _not_with_scales(self) -> Iterator[str]:
        scales = self.model.scales or [1]
        if scales[0] != 1:
            yield f"model.scales {scales}: must begin with 1, the vector"
        grids = self.model.grids
        if grids and self.objective == "original":
            yield (
                f"objective 'original' is defined for a z that is a vector: model.scales cannot be {scales}"
            )
        if grids and self.model.decoder == "layered" and self.model.norm == "batch":
            yield (
                "model.scales: encoding the grids decodes first, which would count the batch statistics of "
                "model.norm 'batch' twice"
            )
        for coarse, fine in itertools.pairwise(grids):
            if fine <= coarse or fine % coarse or (fine // coarse).bit_count() != 1:
                yield f"model.scales {scales}: {fine} is not {coarse} doubled one or more times"
        if grids and self.model.prior_structure != "free":
            yield (
                f"model.prior_structure {self.model.prior_structure!r} is for a z that is a vector: "
                f"model.scales cannot be {scales}"
            )
        if self.model.dimensions > MOST_DIMENSIONS:
            yield (
                f"model.scales {scales}: with model.scale_latents {self.model.scale_latents} z has "
                f"{self.model.dimensions:,} dimensions, more than {MOST_DIMENSIONS:,}"
            )

    def _penalties_out_of_place(self) -> Iterator[str]:
        on = [name for name in LEVERS if getattr(self.loss, name) > 0]
        if self.objective != "intact":
            for name in on:
                yield f"objective {self.objective!r} is a baseline: loss.{name} cannot be on"
        if "guidance" in on and not self.model.predictor:
            yield "loss.guidance: uses the attribute predictor, but model.predictor is false"
        for name in ("reencode", "guidance"):
            if name in on and self.model.norm == "batch":
                yield (
                    f"loss.{name}: decodes counterfactuals during training, which would enter the batch statistics "
                    "of model.norm 'batch'"
                )
