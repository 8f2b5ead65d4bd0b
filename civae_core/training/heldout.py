"""Looking at held-out images during training: the validation loss and the sample grid."""

import torch
from torch import Tensor

from civae_core.config import Config
from civae_core.counterfactual import abduct, original_counterfactual, predict
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import write_png
from civae_core.model import IntactVAE
from civae_core.objective import objective
from civae_core.randomness import generator_for
from civae_core.training.run_folder import RunFolder

GRID_ROWS = 8
BATCH = 64


class HeldOut:
    """Fixed held-out images, in raw labels, that a run is looked at with."""

    def __init__(
        self, data: PreparedData, chosen: LabelledRows, config: Config, device: torch.device
    ) -> None:
        self.data, self.chosen, self.config, self.device = data, chosen, config, device
        self.count = min(config.train.validate_images, len(chosen))

    @torch.no_grad()
    def loss(self, model: IntactVAE) -> dict[str, float]:
        """The unweighted objective at full β over the validation images, with fixed noise."""
        totals = torch.zeros(3)
        for start in range(0, self.count, BATCH):
            items = slice(start, min(start + BATCH, self.count))
            y_BCHW, x_BX, t_BT = self._batch(items)
            noise_BZ = torch.randn(len(y_BCHW), model.latent, generator=generator_for(0, "validation", start))
            output = model(y_BCHW, x_BX, t_BT, noise_BZ.to(self.device))
            terms = objective(self.config.objective, y_BCHW, output, self.config.loss.beta)
            values = torch.stack([terms.loss, terms.kl, terms.squared_error]).cpu()
            totals += values * len(y_BCHW)
        loss, kl, error = (totals / self.count).tolist()
        return {"valid_loss": loss, "valid_kl": kl, "valid_mse": error}

    def save_grid(self, model: IntactVAE, folder: RunFolder, images_seen: int) -> None:
        """Writes samples/step-<images>.png: original | reconstruction | each treatment's counterfactual."""
        y_BCHW, x_BX, t_BT = self._batch(slice(0, min(GRID_ROWS, len(self.chosen))))
        abduction = abduct(model, y_BCHW, x_BX, t_BT)
        columns = [("original", y_BCHW), ("reconstruction", abduction.reconstruction.mean_BCHW)]
        treatments = self.config.data.treatment
        for index, name in enumerate(treatments):
            t_new_BT = t_BT.clone()
            t_new_BT[:, index] = self._other(index, t_BT[:, index])
            for tau in (0.0, 1.0):
                if self.config.objective == "original":
                    result = original_counterfactual(model, y_BCHW, x_BX, t_BT, t_new_BT, noise=tau)
                else:
                    result = predict(model, abduction, t_new_BT, noise=tau)
                columns.append((f"{name} changed, τ={tau:.0f}", result.image_BCHW))
        write_png(folder.samples / f"step-{images_seen:09d}.png", image_grid(columns))

    def _batch(self, items: slice) -> tuple[Tensor, Tensor, Tensor]:
        return self.chosen[items].read(self.data, self.device)

    def _other(self, index: int, t_B: Tensor) -> Tensor:
        """The other value of a binary treatment; of a continuous one, the far end of what was seen."""
        column = self.chosen.t_NT[:, index]
        low, high = column.min().item(), column.max().item()
        return torch.where(t_B > (low + high) / 2, low, high)
