"""The sources that a run trains on, each with its own normalisation, windows and order."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from climlstm.data.normalised import normalised_climatology
from climlstm.data.roles import given_channels, settings_of
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import climatology_at
from climlstm.data.statistics.statistics import Statistics
from climlstm.data.windows.plan import WindowPlan, share, turns
from climlstm.data.windows.starts import Starts
from climlstm.data.windows.stream import Window, WindowStream
from climlstm.model.given import resolve, with_given
from climlstm.model.spec import Spec
from climlstm.training.parallel import Workers
from climlstm.training.untrained import describe


@dataclass(frozen=True, eq=False)
class Source:
    """The windows of one source."""

    data: RunData
    statistics: Statistics
    """Those that its windows are normalised with."""
    plan: WindowPlan
    stream: WindowStream

    def windows(self, groups: Sequence[Starts]) -> Iterator[Window]:
        """Each window with what a forecast may know of channels from outside behind its forcing."""
        return map(self._known, self.stream.windows(groups))

    def climatology(
        self, window: Window, channels: Sequence[str], leads: NDArray[np.int64]
    ) -> Tensor:
        """Normalised climatology (B, L, C, H, W) of some channels at lead steps."""
        times = self.data.config.data.step.time(leads, window.init_time[:, None])
        normal = normalised_climatology(
            climatology_at(self.data.climatology, times.ravel()),
            settings_of(self.data.config.data),
            self.statistics.of(tuple(channels)),
        )
        return normal.unflatten(0, times.shape).to(window.history.device)

    def _known(self, window: Window) -> Window:
        if window.given is None:
            return window
        given = given_channels(self.data.config.data, training=True)
        sources, known = [each.source for each in given], self.stream.history
        normal = None
        if {"persisted", "climatology"} & set(sources):
            leads = np.arange(1 - known, self.stream.horizon + 1)
            normal = self.climatology(window, [each.name for each in given], leads)
        resolved = resolve(window.given, sources, known=known, normal=normal)
        return replace(window, forcing=with_given(self._spec, window.forcing, resolved))

    @cached_property
    def _spec(self) -> Spec:
        return describe(self.data.config, self.data.cube)


@contextmanager
def open_sources(
    data: RunData, statistics: Statistics, workers: Workers
) -> Iterator[tuple[Source, ...]]:
    """The run's own source, normalised with these statistics, and the further ones."""
    every, bounded = (data, *data.further), bounded_channels(data)
    with ExitStack() as stack:
        found = []
        for each in every:
            known = statistics if each is data else like(each.statistics, statistics, bounded)
            stream = stack.enter_context(
                each.open_windows(
                    known, device=workers.device, neighbours=workers.neighbours * len(every)
                )
            )
            found.append(Source(each, known, each.order(each.train_starts, stream), stream))
        yield tuple(found)


def bounded_channels(data: RunData) -> list[str]:
    """Channels whose forecasts have a least or greatest value."""
    settings = settings_of(data.config.data).items()
    return [name for name, each in settings if {"minimum", "maximum"} & each.keys()]


def like(own: Statistics, first: Statistics, channels: Sequence[str]) -> Statistics:
    """The own statistics, with means and standard deviations of some channels from `first`."""
    at = np.isin(own.channels, channels)
    mean, std = np.where(at, first.mean, own.mean), np.where(at, first.std, own.std)
    return replace(own, mean=mean, std=std)


def mixed_batches(
    sources: Sequence[Source], epoch: int, first: int, workers: Workers
) -> Iterator[Window]:
    """This worker's part of each batch of an epoch from `first` on, source by source in turn."""
    order = turns_of(sources, epoch)
    flows = []
    for number, source in enumerate(sources):
        groups = source.plan.groups(epoch, int((order[:first] == number).sum()))
        flows.append(source.windows(share(groups, rank=workers.rank, world=workers.world)))
    for number in order[first:]:
        window = next(flows[number], None)
        if window is None:  # the stream gave up waiting
            return
        yield window


def turns_of(sources: Sequence[Source], epoch: int) -> NDArray[np.int64]:
    """The number of the source of each batch of an epoch; each in proportion to its windows."""
    batches = [source.plan.batches_per_epoch for source in sources]
    return turns(batches, seed=sources[0].plan.seed, epoch=epoch)


def observed_in_all(sources: Sequence[Source], channels: tuple[str, ...]) -> NDArray[np.bool_]:
    """(C, H, W): cells where every source has values."""
    every = [source.statistics.of(channels).observed for source in sources]
    return np.logical_and.reduce(every)
