"""Commands on data: sources, check, prepare."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from climlstm.cli.arguments import ClusterAddress, Overrides, RunFile
from climlstm.cli.printing import console, print_audit, progress_bar


def sources(
    catalog: Annotated[str, typer.Argument(help="An Intake catalog: path or URL.")],
) -> None:
    """What a catalog offers."""
    from climlstm.data.sources.catalog import list_sources

    table = Table("source", "what", "grid", "span", "licence", box=None, pad_edge=False)
    for source in list_sources(catalog):
        known = source.metadata
        table.add_row(
            source.name,
            source.problem or source.description,
            known.grid or "",
            known.span or "",
            known.licence or "",
        )
    console.print(table)


def check(
    run_file: RunFile,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Audit a run before it starts: leaks, gaps, units, cost of reading; status 1 on errors."""
    from climlstm.config import load_config
    from climlstm.runs import check_reading, check_run

    config = load_config(run_file, set_)
    found = check_run(config)
    if found.passed:
        found = found.having([check_reading(config)])
    if as_json:
        console.print_json(data=found.to_dict())
    else:
        print_audit(found)
    if not found.passed:
        sys.exit(1)


def prepare(
    run_file: RunFile,
    out: Annotated[Path, typer.Option(help="The Zarr store to write.", show_default=False)],
    address: ClusterAddress = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Spread over a running dask.distributed cluster."),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it will take.")
    ] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Lay the data of a run out for training; interrupted, the same command goes on.

    Worth it where 'check' says that reading is slow: remote stores, small regions of large grids,
    GRIB and NetCDF. Workers of a cluster must see the store under the same name.
    """
    from climlstm.config import load_config
    from climlstm.data.estimate import estimate as estimate_cost
    from climlstm.runs import plan_preparation, prepare_run, scheduler_of

    config = load_config(run_file, set_)
    plan = plan_preparation(config, out)
    with console.status("looking at the source"):
        expected = estimate_cost(plan)
    console.print(f"{out}: {expected}", highlight=False, soft_wrap=True)
    if estimate:
        return
    with (
        progress_bar("preparing") as progress,
        scheduler_of(ray=address, dask=dask) as scheduler,
    ):
        catalog, changed = prepare_run(
            config, plan, out, expected=expected, scheduler=scheduler, progress=progress
        )
    options = " ".join(f"--set {change}" for change in changed)
    console.print(f"wrote {out} and its catalog {catalog}; train from it with", soft_wrap=True)
    console.print(f"  climlstm train {run_file} {options}", highlight=False, soft_wrap=True)
