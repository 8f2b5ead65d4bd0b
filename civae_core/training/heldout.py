"""What training measures on held-out images: validation loss, sample grid, calibration and familiarity."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from civae_core.attributes import Attribute, AttributeRoles
from civae_core.config import Config
from civae_core.counterfactual import PREDICTIONS, abduct
from civae_core.data import PreparedData
from civae_core.data.labelled import LabelledRows, evenly_spread, rows_with_labels
from civae_core.data.splits import Split
from civae_core.figures.grids import image_grid
from civae_core.figures.pictures import write_png
from civae_core.model import IntactVAE
from civae_core.model.calibrated import UNCALIBRATED, Calibration, fit_calibration
from civae_core.model.familiar import Familiarity, fit_familiarity, reconstruction_errors
from civae_core.objective import objective
from civae_core.randomness import generator_for
from civae_core.training import schedules
from civae_core.training.run_folder import RunFolder

GRID_ROWS = 8
BATCH = 64


class HeldOut:
    """A fixed set of held-out images, spread over their split, on which a run is monitored."""

    def __init__(
        self,
        data: PreparedData,
        chosen: LabelledRows,
        roles: AttributeRoles,
        config: Config,
        device: torch.device,
        split: Split = "valid",
        *,
        at_once: int | None = None,
    ) -> None:
        """
        Args:
            chosen: rows of `split` that lack no label.
            at_once: number of images measured at once, to save memory; at most, and for None, 64.
        """
        self.data, self.roles, self.config, self.device = data, roles, config, device
        # Tables are often sorted by a label, so the first images would all be of one kind.
        self.validated = chosen[evenly_spread(len(chosen), config.train.validate_images)]
        self.shown = chosen[evenly_spread(len(chosen), GRID_ROWS)]
        self.split = split
        self.at_once = min(at_once or BATCH, BATCH)
        labelled = rows_with_labels(data, roles, split)
        self.calibrated_on = labelled[evenly_spread(len(labelled), config.train.validate_images)]

    @torch.no_grad()
    def loss(self, model: IntactVAE) -> dict[str, float]:
        """The unweighted objective at full β on the validation images, with fixed noise."""
        totals = torch.zeros(3)
        beta = schedules.betas(self.config.loss.beta_warmup, self.config, self.device)
        for start in range(0, len(self.validated), BATCH):
            images = self.validated[start : start + BATCH].read(self.data, self.device)
            noise_BZ = torch.randn(
                len(images[0]), model.latent, generator=generator_for(0, "validation", start)
            )
            # The noise depends on the batch, so batches stay the same however many images are measured at once.
            inputs = (*images, noise_BZ.to(self.device))
            for part in zip(*(values.split(self.at_once) for values in inputs), strict=True):
                terms = objective(self.config.objective, part[0], model(*part), beta)
                values = torch.stack([terms.loss, terms.kl, terms.squared_error]).cpu()
                totals += values * len(part[0])
        loss, kl, error = (totals / len(self.validated)).tolist()
        return {"valid_loss": loss, "valid_kl": kl, "valid_mse": error}

    @torch.no_grad()
    def calibration(self, model: IntactVAE) -> Calibration:
        """Calibrate the predictor on images that it did not learn from; rows may lack labels.

        On training images the predictor is overconfident, so without other images it stays uncalibrated.
        """
        if model.predictor is None or self.split == "train":
            return UNCALIBRATED
        size = self.at_once
        parts = [
            model.predictor(self.calibrated_on[start : start + size].read(self.data, self.device)[0]).cpu()
            for start in range(0, len(self.calibrated_on), size)
        ]
        labels_NA = torch.cat([self.calibrated_on.t_NT, self.calibrated_on.x_NX], dim=1)
        return fit_calibration(torch.cat(parts), labels_NA, self.roles.inputs, self.split)

    @torch.no_grad()
    def familiarity(self, model: IntactVAE) -> Familiarity | None:
        """How well held-out images are reconstructed; None on the training split, or if they set no limit."""
        if self.split == "train":
            return None
        errors, size = [], self.at_once
        for start in range(0, len(self.validated), size):
            y_BCHW, x_BX, t_BT = self.validated[start : start + size].read(self.data, self.device)
            found_BCHW = abduct(model, y_BCHW, x_BX, t_BT).reconstruction.mean_BCHW
            errors.append(reconstruction_errors(y_BCHW.cpu().numpy(), found_BCHW.float().cpu().numpy()))
        return fit_familiarity(np.concatenate(errors), self.split)

    def save_grid(self, model: IntactVAE, folder: RunFolder, images_seen: int) -> Path:
        """Write samples/step-<images>.png: original | reconstruction | each treatment's counterfactuals.

        Raises:
            CivaeError: the disk is full or the folder is not writable.
        """
        y_BCHW, x_BX, t_BT = self.shown.read(self.data, self.device)
        abduction = abduct(model, y_BCHW, x_BX, t_BT)
        columns = [("original", y_BCHW), ("reconstruction", abduction.reconstruction.mean_BCHW)]
        predict = PREDICTIONS[self.config.objective]
        for index, attribute in enumerate(self.roles.treatments):
            t_new_BT = t_BT.clone()
            t_new_BT[:, index] = _other_end(attribute, t_BT[:, index])
            for tau in (0.0, 1.0):
                result = predict(model, abduction, t_new_BT, noise=tau)
                columns.append((f"{attribute.name} changed, τ={tau:.0f}", result.image_BCHW))
        path = folder.samples / f"step-{images_seen:09d}.png"
        write_png(path, image_grid(columns))
        return path


def _other_end(attribute: Attribute, t_B: Tensor) -> Tensor:
    """The other value of a binary treatment; for a continuous one, the far end of the range seen in training."""
    middle = (attribute.low + attribute.high) / 2
    return torch.where(t_B > middle, attribute.low, attribute.high)
