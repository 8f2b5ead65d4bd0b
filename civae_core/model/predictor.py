"""The attribute predictor p(x,t|y), which fills in attributes that the user did not state (docs/method.md)."""

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64, 96)
INPUT_SIZE = 32


class AttributePredictor(nn.Module):
    """A small convolutional network that sees the image reduced to about 32 px.

    It has one output per treatment and covariate: the logit of a binary attribute, the standardised mean of a
    continuous one. It shares no weights with the VAE, so training both together does not affect the VAE.

    Args:
        size: side of the square image in pixels.
        channels: 1 (grey) or 3 (RGB).
        attributes: number A of treatments and covariates together.
    """

    def __init__(self, size: int, channels: int, attributes: int) -> None:
        super().__init__()
        self.pool = max(size // INPUT_SIZE, 1)
        layers: list[nn.Module] = []
        previous, bottom = channels, size // self.pool
        for width in WIDTHS:
            layers += [nn.Conv2d(previous, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU()]
            if bottom > 1:
                layers += [nn.AvgPool2d(2)]
                bottom //= 2
            previous = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(previous * bottom * bottom, attributes)

    def forward(self, y_BCHW: Tensor) -> Tensor:
        """Outputs [B, A] in float32, treatments first, for images [B,C,S,S] in [0,1]."""
        h_BCHW = F.avg_pool2d(y_BCHW, self.pool) if self.pool > 1 else y_BCHW
        outputs_BA: Tensor = self.head(self.features(2 * h_BCHW - 1).flatten(1))
        return outputs_BA.float()
