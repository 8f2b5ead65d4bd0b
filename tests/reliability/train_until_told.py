"""`civae`, but processes in $HOLD_RANKS (any of "01") wait before the step at $HOLD_AT images for a signal.

A test that sends the signal thus knows where the process is, however busy the machine.
"""

import os
import time
from pathlib import Path

from civae_cli.app import main
from civae_core.data.batches import Batch
from civae_core.training.learner import Learner
from civae_core.training.stopping import StopRequest

_step, _handle = Learner.step, StopRequest.handle
told: list[int] = []


def handle(request: StopRequest, number: int, frame: object) -> None:
    told.append(number)
    _handle(request, number, frame)  # type: ignore[arg-type]


def step(learner: Learner, made: Batch, seen: int, partly: Batch | None = None) -> None:
    rank = os.environ["RANK"]
    if seen == int(os.environ["HOLD_AT"]) and rank in os.environ["HOLD_RANKS"]:
        Path(os.environ["HOLD_NOTES"], f"{rank}-at-{seen}").touch()
        while not told:
            time.sleep(0.005)
    _step(learner, made, seen, partly)


if __name__ == "__main__":
    StopRequest.handle, Learner.step = handle, step  # type: ignore[method-assign]
    main()
