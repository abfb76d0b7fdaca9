"""Starting from another run's checkpoint: what is taken from it, and the record of it.

A fine-tuned forecaster keeps its parent's weights and normalisation, since the weights are made for
it; grid, periods and source may be others. What the parent was trained and validated on counts as
seen by the child (see audit/leaks.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from climlstm import plugins
from climlstm.config import Config
from climlstm.data.statistics.statistics import Statistics
from climlstm.errors import CheckpointError
from climlstm.model.saving import read_forecaster, read_json
from climlstm.model.spec import Spec
from climlstm.training.checkpoint import best_checkpoint
from climlstm.training.storage import fetch_checkpoint

ALIKE = (
    *("network", "channels", "units", "forcing", "static", "step", "start"),
    *("outputs", "given", "settings"),
)
"""Properties that parent and child must share; history and grid may differ."""


@dataclass(frozen=True, eq=False)
class Parent:
    """The forecaster that a run starts from."""

    place: Path
    spec: Spec
    state: Mapping[str, Tensor]
    lineage: list[dict[str, Any]]
    """The parent, and those before it: digest, run, what it has seen. Plain JSON."""

    def require_fit(self, spec: Spec) -> None:
        """Raises CheckpointError unless a forecaster of this spec can take the parent's weights."""
        theirs, ours = (
            {name: getattr(one, name) for name in ALIKE}
            | {"options": plugins.check_options("models", one.network, one.options)}
            for one in (self.spec, spec)
        )
        different = [
            f"{name} {theirs[name]} there, {ours[name]} here"
            for name in theirs
            if theirs[name] != ours[name]
        ]
        if different:
            raise CheckpointError(
                f"A run cannot start from {self.place}, which has {'; '.join(different)}. Make the "
                "run file alike, or train from the beginning."
            )

    def normalise(self, statistics: Statistics) -> Statistics:
        """The statistics with the parent's mean and standard deviations."""
        own = {
            name: self.state[name].double().cpu().numpy().astype(np.float64)
            for name in self.state
            if name.endswith(("normaliser.mean", "normaliser.std", "tendency_std"))
        }
        mean, std, change = (a.copy() for a in _scales(statistics))
        at = [statistics.channels.index(each.name) for each in self.spec.given]
        if at:
            mean[at], std[at] = own["given_normaliser.mean"], own["given_normaliser.std"]
        at = [statistics.channels.index(name) for name in self.spec.channels]
        mean[at], std[at] = own["normaliser.mean"], own["normaliser.std"]
        change[at] = own["tendency_std"]
        return replace(statistics, mean=mean, std=std, tendency_std=change)


def _scales(statistics: Statistics) -> tuple[NDArray[np.float64], ...]:
    return statistics.mean, statistics.std, statistics.tendency_std


def find_parent(config: Config, resume_from: Path | None) -> Parent | None:
    """The forecaster that a run starts from, if its run file names one.

    resume_from: a checkpoint of the run itself, which has all that is needed of the parent.
    """
    if config.training.start_from is None:
        return None
    if resume_from is not None:
        forecaster, provenance = read_forecaster(resume_from)
        lineage = list(provenance.get("lineage", []))
        return Parent(resume_from, forecaster.spec, forecaster.state_dict(), lineage)
    location = config.training.start_from
    given = fetch_checkpoint(location) if "://" in location else Path(location)
    place = given if (given / "forecaster.json").exists() else best_checkpoint(given)
    forecaster, provenance = read_forecaster(place)
    entry = {
        "digest": read_json(place / "forecaster.json")["sha256"],
        "checkpoint": str(place),
        "run": provenance.get("run"),
        "step": provenance.get("step"),
        "data": provenance.get("data"),
        "seen": provenance.get("seen", {}),
        "audit": provenance.get("audit", {}).get("digest"),
    }
    lineage = [entry, *provenance.get("lineage", [])]
    return Parent(place, forecaster.spec, forecaster.state_dict(), lineage)
