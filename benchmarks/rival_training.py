"""One rival's fit with its own defaults, timed: run by an environment that has it, for training.py.

    python rival_training.py neuralforecast|darts table.csv TRAINED VALIDATED LOOK_BACK HORIZON

`table.csv` has ds and y, in z-scores, TRAINED rows to train on and VALIDATED to validate on. Prints one JSON object:
seconds of the whole fit, and [seconds, mse on all validation windows] at each of its validations.
"""

import json
import logging
import sys
import time
import warnings
from typing import Any

import pandas as pd
import torch
from pytorch_lightning.callbacks import Callback

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
QUIET = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}


class Watch(Callback):  # type: ignore[misc]  # another environment's
    """Notes the validation error, and when."""

    def __init__(self, metric: str) -> None:
        self.metric, self.began, self.seen = metric, time.monotonic(), list[tuple[float, float]]()

    def __deepcopy__(self, memo: object) -> "Watch":
        """Itself: neuralforecast trains a copy of the model that it is given, and of its callbacks."""
        return self

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Called by Lightning."""
        if not trainer.sanity_checking:
            self.seen.append((time.monotonic() - self.began, float(trainer.callback_metrics[self.metric])))


def neuralforecast(table: pd.DataFrame, validated: int, look_back: int, horizon: int) -> list[tuple[float, float]]:
    """Its LSTM, decoding the horizon at once."""
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import LSTM

    watch = Watch("valid_loss")
    model = LSTM(h=horizon, input_size=look_back, recurrent=False, loss=MSE(), callbacks=[watch], **QUIET)
    NeuralForecast(models=[model], freq="h").fit(table.assign(unique_id="OT"), val_size=validated)
    return watch.seen


def darts(table: pd.DataFrame, validated: int, look_back: int, horizon: int) -> list[tuple[float, float]]:
    """Its BlockRNNModel with an LSTM."""
    from darts import TimeSeries
    from darts.models import BlockRNNModel

    watch = Watch("val_loss")
    series = TimeSeries.from_dataframe(table.astype({"y": "float32"}), "ds", "y")
    model = BlockRNNModel(look_back, horizon, model="LSTM", pl_trainer_kwargs={**QUIET, "callbacks": [watch]})
    model.fit(series[:-validated], val_series=series[-validated - look_back :], verbose=False)
    return watch.seen


if __name__ == "__main__":
    who, path, *numbers = sys.argv[1:]
    trained, validated, look_back, horizon = map(int, numbers)
    table = pd.read_csv(path, parse_dates=["ds"])[: trained + validated]
    torch.manual_seed(0)
    began = time.monotonic()
    seen = {"neuralforecast": neuralforecast, "darts": darts}[who](table, validated, look_back, horizon)
    print(json.dumps({"seconds": time.monotonic() - began, "seen": seen}))
