"""Random inputs for a model, to warm it up and to try it before it is used."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model.card import AnyCard, Array, Card

BATCH = 64


class SyntheticInput:
    """One batch of random model input: values from the ranges in the model's card, and ones."""

    def __init__(self, card: AnyCard, size: int = BATCH) -> None:
        self._card, self._size = card, size

    def __len__(self) -> int:
        return self._size

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """The whole batch; `start` and `stop` are ignored."""
        return {name: self._array(name, array) for name, array in self._card.inputs.items()}

    def _array(self, name: str, array: Array) -> npt.NDArray[Any]:
        shape = [{"batch": self._size}.get(str(size), 3) if isinstance(size, str) else size for size in array.shape]
        if array.dtype != "float32" or not isinstance(self._card, Card):
            return np.ones(shape, array.dtype) * (3 if name == "lengths" else 1)
        ranges = [self._card.ranges.get(feature, (-1.0, 1.0)) for feature in self._card.input.features]
        low, high = np.array(ranges).T
        return np.random.default_rng(0).uniform(low, np.maximum(high, low), shape)
