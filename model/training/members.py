"""The networks of a model, each trained by itself, as many at once as there are cores for."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from model.evaluation.splits import Split
from model.networks.forecast import LSTM, ForecastNetwork, LinearNetwork, Member
from model.networks.protocol import Batch
from model.training import distributed
from model.training.batches import WindowBatches
from model.training.loop import Epoch, OnStep, TrainConfig, optimise
from model.training.ridge import solutions

CORES = torch.get_num_threads()
_EVALUATED = 4_000_000
"""Most steps that validation forecasts, over all windows: of more windows it is an even sample."""
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class TrainedMember:
    """A network after its training."""

    place: int
    """Among those tried."""
    member: Member
    history: list[Epoch]
    errors: Tensor
    """On validation, (T,), in z-scores."""


class WindowSource:
    """Batches of windows, in a new order for each training pass; of many windows a sample."""

    def __init__(self, windows: WindowBatches, parts: Split, horizon: int, most: int, size: int, seed: int) -> None:
        self._windows, self._size = windows, size
        self._train, self._order = torch.from_numpy(parts.train), torch.Generator().manual_seed(seed)
        self._count = min(len(parts.train), most)
        self._even = _evenly(self._train, self._count)
        self._validation = _evenly(torch.from_numpy(parts.validation), max(1, min(most, _EVALUATED // horizon)))
        self.steps = -(-self._count // size)

    def train(self) -> Iterator[Batch]:
        """One pass, shuffled."""
        order = torch.randperm(len(self._train), generator=self._order)
        return self._batches(self._train[order[: self._count]], self._size)

    def validation(self) -> Iterator[Batch]:
        """One pass, in order."""
        return self._batches(self._validation, _BATCH)

    def even(self) -> Iterator[Batch]:
        """The training windows in order; of many an even sample."""
        return self._batches(self._even, _BATCH)

    @torch.no_grad()
    def errors(self, model: ForecastNetwork, trained: bool = False) -> Tensor:
        """A model's errors (T,) at all observed targets of the validation or training windows, in z-scores."""
        batches = map(self._windows.batch, torch.split(self._even if trained else self._validation, _BATCH))
        return torch.cat(
            [
                ((model(batch.x, batch.step, batch.future) - batch.y) / batch.scale)[batch.observed].cpu()
                for batch in batches
            ]
        )

    def _batches(self, ends: Tensor, size: int) -> Iterator[Batch]:
        return (self._windows.batch(distributed.share(part)) for part in torch.split(ends, size))


def _evenly(ends: Tensor, most: int) -> Tensor:
    return ends[np.linspace(0, len(ends) - 1, min(len(ends), most)).astype(int)]


def numbered(histories: Iterable[Sequence[Epoch]]) -> list[Epoch]:
    """All epochs, numbered on."""
    return [replace(epoch, number=number) for number, epoch in enumerate(chain(*histories), 1)]


def side_by_side(
    members: list[Member], sources: list[WindowSource], config: TrainConfig, on_step: OnStep
) -> list[TrainedMember]:
    """Trains each network; each has an equal share of the time there may be, and without any left is not begun.

    One after the other on a GPU, in a team of processes, which meet at each step, and with LSTMs of several layers,
    whose dropout is by the process's random numbers.
    """
    device = members[0].columns.device
    alone = distributed.size() > 1 or config.layers > 1 or device.type != "cpu"
    workers = 1 if alone else max(1, CORES // config.threads)
    lstms = [place for place, each in enumerate(members) if isinstance(each.network, LSTM)]
    progress, began = (
        _Progress(on_step, {place: (config.epochs or 1) * sources[place].steps for place in lstms}),
        time.monotonic(),
    )

    def share(place: int) -> float | None:
        if config.seconds is None:
            return None
        left = config.seconds - distributed.mean(time.monotonic() - began, device)
        rounds = -(-(len(lstms) - lstms.index(place)) // workers)
        return (left if place > lstms[0] else max(left, 1e-3)) / rounds

    def train(place: int) -> TrainedMember | None:
        torch.set_num_threads(config.threads)
        model, source = ForecastNetwork([members[place]], [1.0]).to(device), sources[place]
        if place not in lstms:
            return TrainedMember(place, members[place], [_solve(model, source)], source.errors(model))
        seconds = share(place)
        if seconds is not None and seconds <= 0:
            return None
        history = optimise(model, source, replace(config, seconds=seconds), partial(progress.tell, place))
        progress.end(place)
        return TrainedMember(place, members[place], history, source.errors(model))

    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(train, place) for place in range(len(members))]
        for future in as_completed(futures):
            future.result()
        return [made for future in futures if (made := future.result())]
    finally:
        progress.stop()
        pool.shutdown(cancel_futures=True)


def _solve(model: ForecastNetwork, source: WindowSource) -> Epoch:
    """What needs no steps: a linear network gets its best weights on validation."""
    begun, (member,) = time.perf_counter(), model.members
    assert isinstance(member, Member)
    if isinstance(member.network, LinearNetwork):
        tried: list[tuple[float, Tensor]] = []
        for weights in solutions(member, source.even):
            member.network.weight.data = weights
            tried.append((_mse(source.errors(model)), weights))
        _, member.network.weight.data = min(tried, key=lambda each: each[0])
    train, validation = (_mse(source.errors(model, trained=trained)) for trained in (True, False))
    return Epoch(number=1, train_loss=train, validation_loss=validation, seconds=time.perf_counter() - begun)


def _mse(errors: Tensor) -> float:
    return float(errors.double().square().mean())


class _Progress:
    """What all networks in training have done, told as one."""

    def __init__(self, on_step: OnStep, planned: dict[int, int]) -> None:
        self._on_step, self._lock, self._stopped = on_step, Lock(), False
        self._seen: dict[int, tuple[int, int, list[Epoch]]] = {
            place: (0, steps, []) for place, steps in planned.items()
        }

    def tell(self, place: int, done: int, total: int, epochs: list[Epoch]) -> None:
        with self._lock:
            if self._stopped:
                raise InterruptedError("another network's training failed")
            self._seen[place] = done, total, epochs
            dones, totals, histories = zip(*self._seen.values(), strict=True)
            self._on_step(sum(dones), sum(totals), numbered(histories))

    def end(self, place: int) -> None:
        with self._lock:
            done, _, epochs = self._seen[place]
            self._seen[place] = done, done, epochs

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
