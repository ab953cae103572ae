"""Trains the members of an ensemble independently, in parallel on the CPU's cores."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import chain
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from model.evaluation.splits import Split
from model.networks.forecast import EnsembleMember, ForecastNetwork
from model.networks.layers import LSTM, LinearNetwork
from model.networks.protocol import Batch
from model.training import distributed
from model.training.batches import WindowBatches
from model.training.loop import Epoch, OnStep, TrainConfig, optimise
from model.training.ridge import solutions

CORES = torch.get_num_threads()
_EVALUATED = 4_000_000
"""The most steps forecast in a validation pass; more windows are sampled evenly."""
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class TrainedMember:
    """A trained member of the ensemble."""

    place: int
    """Its index among the candidates."""
    member: EnsembleMember
    history: list[Epoch]
    errors: Tensor
    """Validation errors (T,) in z-scores."""


class WindowSource:
    """Batches of windows, reshuffled each epoch; an epoch has at most `most` windows."""

    def __init__(self, windows: WindowBatches, parts: Split, horizon: int, most: int, size: int, seed: int) -> None:
        self._windows, self._size = windows, size
        self._train, self._order = torch.from_numpy(parts.train), torch.Generator().manual_seed(seed)
        self._count = min(len(parts.train), most)
        self._even = _evenly(self._train, self._count)
        self._validation = _evenly(torch.from_numpy(parts.validation), max(1, min(most, _EVALUATED // horizon)))
        self.steps = -(-self._count // size)

    def train(self) -> Iterator[Batch]:
        """One shuffled epoch."""
        order = torch.randperm(len(self._train), generator=self._order)
        return self._batches(self._train[order[: self._count]], self._size)

    def validation(self) -> Iterator[Batch]:
        """One pass in order."""
        return self._batches(self._validation, _BATCH)

    def even(self) -> Iterator[Batch]:
        """The training windows in order, evenly sampled if there are too many."""
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
        return (self._windows.batch(distributed.shard(part)) for part in torch.split(ends, size))


def _evenly(ends: Tensor, most: int) -> Tensor:
    return ends[np.linspace(0, len(ends) - 1, min(len(ends), most)).astype(int)]


def numbered(histories: Iterable[Sequence[Epoch]]) -> list[Epoch]:
    """All epochs, numbered consecutively."""
    return [replace(epoch, number=number) for number, epoch in enumerate(chain(*histories), 1)]


def side_by_side(
    members: list[EnsembleMember],
    names: list[str],
    sources: list[WindowSource],
    config: TrainConfig,
    on_step: OnStep,
) -> list[TrainedMember]:
    """Trains each member within an equal share of the time budget; members for which no time is left are omitted.

    The epochs of each have its name.

    Members train one after another on a GPU, with several ranks, which synchronise at each step, and with LSTMs of
    several layers, whose dropout uses the process's global random generator.
    """
    training = _SideBySide(members, names, sources, config, on_step)
    pool = ThreadPoolExecutor(training.workers)
    try:
        futures = [pool.submit(training.train, place) for place in range(len(members))]
        for future in as_completed(futures):
            future.result()
        return [trained for future in futures if (trained := future.result())]
    finally:
        training.progress.stop()
        pool.shutdown(cancel_futures=True)


class _SideBySide:
    """Trains several members in threads within one time budget."""

    def __init__(
        self,
        members: list[EnsembleMember],
        names: list[str],
        sources: list[WindowSource],
        config: TrainConfig,
        on_step: OnStep,
    ) -> None:
        self._members, self._names, self._sources, self._config = members, names, sources, config
        self._device = members[0].columns.device
        self._lstms = [place for place, each in enumerate(members) if isinstance(each.network, LSTM)]
        sequential = distributed.world_size() > 1 or config.layers > 1 or self._device.type != "cpu"
        self.workers = 1 if sequential else max(1, CORES // config.threads)
        steps = {place: (config.epochs or 1) * sources[place].steps for place in self._lstms}
        self.progress, self._started = _Progress(on_step, steps), time.monotonic()

    def train(self, place: int) -> TrainedMember | None:
        """Train one member; None if no time is left for it."""
        torch.set_num_threads(self._config.threads)
        member, source = self._members[place], self._sources[place]
        model = ForecastNetwork([member], [1.0]).to(self._device)
        if place not in self._lstms:
            return TrainedMember(place, member, self._named(place, [_solve(model, source)]), source.errors(model))
        seconds = self._budget(place)
        if seconds is not None and seconds <= 0:
            return None

        def on_step(done: int, total: int, epochs: list[Epoch]) -> None:
            self.progress.update(place, done, total, self._named(place, epochs))

        history = optimise(model, source, replace(self._config, seconds=seconds), on_step)
        self.progress.end(place)
        return TrainedMember(place, member, self._named(place, history), source.errors(model))

    def _named(self, place: int, epochs: list[Epoch]) -> list[Epoch]:
        return [replace(epoch, member=self._names[place]) for epoch in epochs]

    def _budget(self, place: int) -> float | None:
        """The time budget of one LSTM, its share of the remaining seconds; the first one always gets some."""
        if self._config.seconds is None:
            return None
        left = self._config.seconds - distributed.all_reduce_mean(time.monotonic() - self._started, self._device)
        rounds = -(-(len(self._lstms) - self._lstms.index(place)) // self.workers)
        return (left if place > self._lstms[0] else max(left, 1e-3)) / rounds


def _solve(model: ForecastNetwork, source: WindowSource) -> Epoch:
    """Fit a member in closed form: a linear network by ridge regression, its penalty chosen on validation."""
    started, (member,) = time.perf_counter(), model.members
    assert isinstance(member, EnsembleMember)
    if isinstance(member.network, LinearNetwork):
        candidates: list[tuple[float, Tensor]] = []
        for weights in solutions(member, source.even):
            member.network.weight.data = weights
            candidates.append((_mse(source.errors(model)), weights))
        _, member.network.weight.data = min(candidates, key=lambda each: each[0])
    train, validation = (_mse(source.errors(model, trained=trained)) for trained in (True, False))
    return Epoch(number=1, train_loss=train, validation_loss=validation, seconds=time.perf_counter() - started)


def _mse(errors: Tensor) -> float:
    return float(errors.double().square().mean())


class _Progress:
    """Reports the progress of all members in training as one."""

    def __init__(self, on_step: OnStep, planned: dict[int, int]) -> None:
        self._on_step, self._lock, self._stopped = on_step, Lock(), False
        self._seen: dict[int, tuple[int, int, list[Epoch]]] = {
            place: (0, steps, []) for place, steps in planned.items()
        }

    def update(self, place: int, done: int, total: int, epochs: list[Epoch]) -> None:
        with self._lock:
            if self._stopped:
                raise InterruptedError("the training of another member failed")
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
