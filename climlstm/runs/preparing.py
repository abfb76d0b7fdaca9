"""Write the cube of a run in the layout that streams best."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from climlstm.advice import one_line
from climlstm.config import Config, as_config
from climlstm.data import prepare as layout
from climlstm.data.cube.cube import CubePlan
from climlstm.data.estimate import Estimate, estimate
from climlstm.data.prepare import Progress, check_free, restrict
from climlstm.data.run_data import RunData
from climlstm.data.sources.catalog import write_entry
from climlstm.files import lock
from climlstm.runs.clusters import scheduler_of


@dataclass(frozen=True)
class Prepared:
    """A store that was written, and how a run is trained from it."""

    store: Path
    catalog: Path
    """A catalog with the store as its one source."""
    overrides: tuple[str, ...]
    """Keys of the run file that change, as `load_config` and `--set` take them."""


def plan_preparation(config: Config, out: Path) -> CubePlan:
    """The cube of a run file in the span of its periods, which `prepare` writes.

    Raises a ClimLSTMError where source and run file do not fit, or `out` exists.
    """
    check_free(out)
    return restrict(RunData(config).plan, config.data)


def estimate_preparation(config: Config | str | Path, out: str | Path) -> Estimate:
    """Bytes and time that `prepare` will take, from a few chunks; nothing is written."""
    return estimate(plan_preparation(as_config(config), Path(out)))


def prepare(
    config: Config | str | Path,
    out: str | Path,
    *,
    ray: str | None = None,
    dask: str | None = None,
    announce: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write the cube of a run in the layout that streams best, with a catalog beside it.

    config: a run, or the path of its file.
    out: the Zarr store to write; workers of a cluster see it under the same name.
    ray, dask: address of a running cluster to spread over; by default this process does it.
    announce: is called with the estimate before anything is written.
    progress: is called with how many pieces are done, and how many there are.
    Raises a ClimLSTMError where source and run file do not fit, or `out` exists.

    >>> import climlstm
    >>> prepared = climlstm.prepare("run.yaml", "cube.zarr")
    >>> config = climlstm.load_config("run.yaml", prepared.overrides)
    >>> config.data.source
    'cube'
    """
    config, out = as_config(config), Path(out)
    plan = plan_preparation(config, out)
    expected = estimate(plan)
    if announce is not None:
        announce(expected)
    with (
        scheduler_of(ray=ray, dask=dask) as scheduler,
        lock(out, f"The store {out} is being written"),
    ):
        layout.prepare(
            plan, out, data=config.data, expected=expected, scheduler=scheduler, progress=progress
        )
    name = out.name.removesuffix(".zarr")
    catalog = out.with_name(f"{name}.catalog.yaml")
    write_entry(catalog, name, out, like=(config.data.catalog, config.data.source))
    place = {"catalog": str(catalog.resolve()), "source": name}
    changed = [f"data.{key}={one_line(value)}" for key, value in place.items()]
    if config.data.parameters:
        changed.append("data.parameters={}")
    if config.data.coarsen > 1:
        changed.append("data.coarsen=1")
    return Prepared(out, catalog, tuple(changed))
