"""Commands on data: sources, check, prepare."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from climlstm.cli.arguments import ClusterAddress, Overrides, RunFile
from climlstm.cli.printing import console, print_audit, print_command, print_table, progress_bar

if TYPE_CHECKING:
    from climlstm.config import Config


def sources(
    catalog: Annotated[str, typer.Argument(help="An Intake catalog: path or URL.")],
) -> None:
    """List the sources of a catalog."""
    from climlstm import list_sources

    rows = [
        (
            source.name,
            source.problem or source.description,
            source.metadata.grid or "",
            source.metadata.span or "",
            source.metadata.licence or "",
        )
        for source in list_sources(catalog)
    ]
    print_table(("source", "what", "grid", "span", "licence"), rows, numbers_from=5)


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="Path, pattern or URL of Zarr, NetCDF or GRIB; or catalog.yaml:NAME.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look into a source: variables, times, grid, missing values, channels it can give.

    A few steps are read. Lines that begin with '!' say what has to be put right.
    """
    import climlstm

    found = climlstm.inspect(source)
    if as_json:
        console.print_json(data=found.to_dict())
    else:
        console.print(repr(found))


def init(
    source: Annotated[
        str,
        typer.Argument(
            help="Path, pattern or URL of Zarr, NetCDF or GRIB; or catalog.yaml:NAME.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path(),
    declare: Annotated[
        list[str],
        typer.Option(metavar="LINE", help="For the catalog's metadata: 'select: {member: 3}'."),
    ] = [],  # noqa: B006
) -> None:
    """Write a catalog and a run file for a source, with comments; check accepts them.

    Channels, periods, step, network and batch follow from the source and this machine. Nothing is
    overwritten.
    """
    from climlstm import runs

    with console.status("looking into the source"):
        started = runs.init(source, out, declare=declare)
    for assumed in started.assumed:
        console.print(f"assumed {assumed}")
    for path in (started.catalog, started.run_file):
        if path is not None:
            console.print(f"wrote {path}")
    console.print(f"{started.parameters:,} parameters, trained in {started.duration}; next")
    print_command("climlstm", "check", str(started.run_file))
    print_command("climlstm", "train", str(started.run_file))


def check(
    run_file: RunFile,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read a few steps only, and fit nothing.")
    ] = False,
    elsewhere: Annotated[
        bool,
        typer.Option("--elsewhere", help="For a cluster: leave out this machine's CPUs, GPUs."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings count as errors: status 1 on them, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Audit a run before it starts: whatever train would refuse, leaks, gaps, cost of reading.

    Statistics are computed and kept for the training. Status 1 on errors.
    """
    from climlstm import load_config, runs

    config = load_config(run_file, set_)
    with console.status("checking"):
        found = runs.check_run(config, quick=quick, elsewhere=elsewhere)
    if as_json:
        console.print_json(data=found.to_dict())
    else:
        print_audit(found)
        if found.passed and not quick:
            _print_weights(config)
    warned = any(finding.severity == "warning" for finding in found.findings)
    if not found.passed or (strict and warned):
        sys.exit(1)


def _print_weights(config: "Config") -> None:
    """Weights of channels in the loss, where the run file gives any."""
    from climlstm import runs

    weights = runs.chosen_weights(config)
    total = sum(each.product for each in weights)
    rows = [
        [
            each.name,
            *(f"{factor:.3g}" for factor in (each.variable, each.level, each.balance)),
            f"{each.product / total:.1%}",
        ]
        for each in weights
    ]
    if rows:
        print_table(("channel", "weight", "level", "std / change", "share"), rows, numbers_from=1)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ask each host of a running Ray cluster: 'auto' or HOST:PORT."),
    ] = None,
) -> None:
    """Tell what this machine has of all that climlstm can use, and how to install the rest."""
    from climlstm.runs.doctor import examine, examine_hosts, summary

    hosts = {"": examine()} if address is None else examine_hosts(address)
    if as_json:
        console.print_json(data=hosts if address else hosts[""])
        return
    for host, found in hosts.items():
        if host:
            console.print(host, style="bold")
        for name, fact in summary(found) if "versions" in found else []:
            console.print(f"{name}: {fact}")
        for problem in found["problems"]:
            console.print(f"! {problem}")


def schema(
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default it is printed.")
    ] = None,
) -> None:
    """JSON schema of the run file, for editors; options of installed plugins included.

    An editor finds it by a first line '# yaml-language-server: $schema=run.schema.json', which the
    files of init have.
    """
    from climlstm.config.schema import run_file_schema

    text = json.dumps(run_file_schema(), indent=1)
    if out is None:
        typer.echo(text)
        return
    out.write_text(text + "\n", encoding="utf-8")
    console.print(f"wrote {out}")


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
    from climlstm import load_config, runs

    def announce(expected: object) -> None:
        console.print(f"{out}: {expected}")

    config = load_config(run_file, set_)
    if estimate:
        announce(runs.estimate_preparation(config, out))
        return
    with progress_bar("preparing") as progress:
        prepared = runs.prepare(
            config, out, ray=address, dask=dask, announce=announce, progress=progress
        )
    console.print(f"wrote {out} and its catalog {prepared.catalog}; train from it with")
    options = [word for change in prepared.overrides for word in ("--set", change)]
    print_command("climlstm", "train", str(run_file), *options)
