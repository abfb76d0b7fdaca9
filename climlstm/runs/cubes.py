"""The cube of a run, and what was learnt from it before training."""

from pathlib import Path

import xarray as xr

from climlstm.config import Config, DataConfig
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.sources.catalog import open_source
from climlstm.data.statistics.statistics import Statistics, compute_statistics
from climlstm.training.task import statistics_folder


def open_cube(data: DataConfig) -> xr.Dataset:
    """The cube that the data section of a run file describes, lazily."""
    return plan_of(data).cube()


def plan_of(data: DataConfig) -> CubePlan:
    """How that cube comes from its source."""
    return plan_cube(open_source(data.catalog, data.source, **data.parameters), data)


def other_data(data: DataConfig, *, catalog: str | None, source: str | None) -> DataConfig | None:
    """The same channels, region and step from another source, or None if none is named."""
    if catalog is None and source is None:
        return None
    return data.model_copy(
        update={"catalog": catalog or data.catalog, "source": source or data.source}
    )


def statistics_of(config: Config, plan: CubePlan) -> Statistics:
    """Of what a run was trained on."""
    bounds = {name: config.data.periods.bounds(name) for name in ("train", "valid", "test")}
    return compute_statistics(
        plan.cube(),
        channels=config.data.state,
        train=bounds["train"],
        others=(bounds["valid"], bounds["test"]),
        plan=plan,
        cache=kept_in(config),
    )


def kept_in(config: Config) -> Path | None:
    """Where statistics are kept; None where it was trained on another machine."""
    return statistics_folder(config) if Path(config.cluster.storage).is_dir() else None
