"""A second model on the same windows, whose answers go to a topic of their own: a challenger seen at work."""

import logging

from deploy.serving.model_updates import ModelUpdater
from deploy.serving.predictor import Predictor
from deploy.serving.tasks import PendingBatch, task_of
from deploy.settings.serve import ServeConfig

logger = logging.getLogger(__name__)


class Shadow:
    """Answers beside the model that serves: whatever is wrong with its model ends the shadow alone.

    Its answers go the way of all others, in the same flush or transaction.
    """

    def __init__(self, updater: ModelUpdater, config: ServeConfig) -> None:
        """The follower brings its models; there is none before the first."""
        self._updater, self._config = updater, config
        self.predictor: Predictor | None = None

    def follow(self) -> None:
        """Go on with another model, if there is one."""
        if made := self._updater.take():
            self.predictor = made
            logger.info(f"{made.label} is the shadow now, on {self._config.shadow_topic}")

    def answers(self, pending: PendingBatch) -> list[bytes]:
        """What the shadow says of all that waits, in order; nothing while there is none."""
        if self.predictor is None:
            return []
        try:
            return list(task_of(self.predictor, self._config).messages(pending, self.predictor))
        except Exception as error:  # of whatever kind: no challenger may end what serves
            logger.warning(f"{self.predictor.label} is no shadow any more: {error}")
            self.predictor = None
            return []
