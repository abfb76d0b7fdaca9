"""Write the cube of a run in the layout that streams best."""

from pathlib import Path
from typing import Any

from climlstm.config import Config
from climlstm.data.cube.cube import CubePlan
from climlstm.data.estimate import Estimate
from climlstm.data.prepare import Progress, check_free, prepare, restrict
from climlstm.data.run_data import RunData
from climlstm.data.sources.catalog import write_entry
from climlstm.files import lock


def plan_preparation(config: Config, out: Path) -> CubePlan:
    """What `prepare_run` will write: the cube of a run file, in the span of its periods.

    Raises a ClimLSTMError where source and run file do not fit, or `out` exists.
    """
    check_free(out)
    return restrict(RunData(config).plan, config.data)


def prepare_run(
    config: Config,
    plan: CubePlan,
    out: Path,
    *,
    expected: Estimate | None = None,
    scheduler: Any = "threads",
    progress: Progress | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write the cube of a run in the layout that streams best, with a catalog beside it.

    plan: of `plan_preparation`; expected: what `estimate` of it gave.
    scheduler: as `prepare` takes it; its workers see `out` under the same name.
    Returns the catalog, and what `--set` takes for a run to train from the store.
    """
    with lock(out, f"The store {out} is being written"):
        prepare(
            plan, out, data=config.data, expected=expected, scheduler=scheduler, progress=progress
        )
    name = out.name.removesuffix(".zarr")
    catalog = out.with_name(f"{name}.catalog.yaml")
    write_entry(catalog, name, out, like=(config.data.catalog, config.data.source))
    changed = [f"data.catalog={catalog.resolve()}", f"data.source={name}"]
    if config.data.parameters:
        changed.append("data.parameters={}")
    if config.data.coarsen > 1:
        changed.append("data.coarsen=1")
    return catalog, tuple(changed)
