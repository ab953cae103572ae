"""A shadow model: it predicts the same windows, and its forecasts go to a topic of their own, to be compared."""

import logging
from typing import Any

from deploy.models.predictor import Predictor
from deploy.models.updates import ModelUpdater
from deploy.serving.forecast_batches import Faults
from deploy.serving.tasks import PendingBatch, task_for
from deploy.settings.serve import ServeConfig
from tidecast.errors import ModelRejected

logger = logging.getLogger(__name__)


class Shadow:
    """A second model beside the serving one. A failure in it stops the shadow only.

    Its messages are sent in the same flush or transaction as all others.
    """

    def __init__(self, updater: ModelUpdater, config: ServeConfig) -> None:
        """There is no model until the updater provides one."""
        self._updater, self._config = updater, config
        self.counts = {"failed": 0}
        """Models that failed and were dropped."""
        self.predictor: Predictor | None = None

    def update(self) -> None:
        """Switch to a new model, if there is one."""
        if predictor := self._updater.take():
            self.predictor = predictor
            logger.info(f"shadow: now predicting with {predictor.label}, to {self._config.shadow_topic}")

    def predict(self, pending: PendingBatch) -> list[Any]:
        """The shadow's columnar forecasts or labels for a pending batch, in order; none while it has no model."""
        if self.predictor is None:
            return []
        try:
            faults = Faults()
            outputs = list(task_for(self.predictor, self._config).predict(pending, self.predictor, faults))
            if faults.failed:
                raise ModelRejected(next(iter(faults.failed.values())))
            return outputs
        except Exception as error:  # whatever it is, a shadow must not stop the service
            logger.warning(f"shadow: {self.predictor.label} failed and is dropped: {error}")
            self.predictor = None
            self.counts["failed"] += 1
            return []
