"""The command line: parse, call one public function, print."""

import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from climlstm.discovery import discover
from climlstm.errors import ClimLSTMError, PluginError, Stopped
from climlstm.plugin_commands import app as plugins_app
from climlstm.secrets import redact

console = Console()
complaints = Console(stderr=True)


class Commands(TyperGroup):
    """Our commands, and those of plugins, which are imported when they are called.

    A plugin's command is a typer app: an entry point of the group climlstm.commands.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return own + sorted({plugin.name for plugin in discover("commands")} - set(own))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        found = [plugin for plugin in discover("commands") if plugin.name == cmd_name]
        if own is not None or not found:
            return own
        try:
            if len(found) > 1:
                raise PluginError(
                    f"The command '{cmd_name}' is offered by several packages: "
                    f"{' and '.join(f'{p.distribution} {p.version}' for p in found)}. Remove all "
                    "but one, or name that one in CLIMLSTM_PLUGINS."
                )
            from climlstm.plugins import load_found  # not for help: it takes half a second

            command = typer.main.get_command(load_found(found[0]))
            command.name = cmd_name  # which help shows, and typer leaves to the group
            return command
        except Exception as error:  # help must not fail because one package is broken
            return typer.main.get_command(_broken(cmd_name, error))


def _broken(name: str, cause: Exception) -> typer.Typer:
    """A command that says why a plugin's own cannot be had."""
    broken = typer.Typer()

    @broken.command(
        name,
        help="(cannot be used; call it to see why)",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def complain() -> None:
        raise PluginError(str(cause)) from cause

    return broken


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Weather and climate forecasting with ConvLSTM networks, from catalog to forecast map.",
)

RunFile = Annotated[Path, typer.Argument(help="The run file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the run file.")
]
DashboardAddress = Annotated[
    str,
    typer.Option(
        help="Ray's dashboard, http://HEAD:8265.",
        envvar="RAY_API_SERVER_ADDRESS",
        show_default=False,
    ),
]
ClusterAddress = Annotated[
    str | None,
    typer.Option("--address", help="Spread over a running Ray cluster: 'auto' or HOST:PORT."),
]
Catalog = Annotated[str | None, typer.Option(help="Another catalog than the run's.")]
Source = Annotated[str | None, typer.Option(help="Another source than the run's.")]


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="Where to put everything.")] = Path("demo"),
    years: Annotated[int, typer.Option(help="Simulated years to train on.", min=1)] = 4,
    workers: Annotated[int, typer.Option(help="Training processes.", min=1)] = 1,
    evaluator: Annotated[
        list[str],
        typer.Option(help="One more evaluator: its name, or as in a run file, '{name: …}'."),
    ] = [],  # noqa: B006
) -> None:
    """Simulated weather to scored forecast and map; nothing to download."""
    from climlstm.config import PluginChoice
    from climlstm.demo import run_demo

    chosen = [PluginChoice.parse(text) for text in evaluator]
    run_demo(directory, years=years, workers=workers, console=console, evaluators=chosen)


@app.command()
def sources(
    catalog: Annotated[str, typer.Argument(help="An Intake catalog: path or URL.")],
) -> None:
    """What a catalog offers."""
    from climlstm.data.catalog import list_sources

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


@app.command()
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


def print_audit(found: Any) -> None:
    """Each finding with its place, value and remedy; errors first."""
    colours = {"error": "red", "warning": "yellow", "note": "cyan"}
    for severity, colour in colours.items():
        for finding in found.findings:
            if finding.severity == severity:
                console.print(
                    f"[bold {colour}]{severity}[/] {_escape(str(finding))}",
                    highlight=False,
                    soft_wrap=True,
                )
    verdict = "passed" if found.passed else "failed"
    errors, findings = len(found.errors), len(found.findings)
    console.print(
        f"{verdict}: {errors} error{'s' * (errors != 1)}, {findings} finding"
        f"{'s' * (findings != 1)}; {found.steps_read} steps read "
        f"({found.bytes_read / 2**20:.1f} MiB decoded), data {(found.digest or 'unknown')[:12]}",
        soft_wrap=True,
    )


@app.command()
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
    from climlstm.data.prepare import estimate as estimate_cost
    from climlstm.runs import plan_preparation, prepare_run, scheduler_of

    config = load_config(run_file, set_)
    plan = plan_preparation(config, out)
    with console.status("looking at the source"):
        expected = estimate_cost(plan)
    console.print(f"{out}: {expected}", highlight=False, soft_wrap=True)
    if estimate:
        return
    with (
        _shown("preparing") as progress,
        scheduler_of(ray=address, dask=dask) as scheduler,
    ):
        catalog, changed = prepare_run(
            config, plan, out, expected=expected, scheduler=scheduler, progress=progress
        )
    options = " ".join(f"--set {change}" for change in changed)
    console.print(f"wrote {out} and its catalog {catalog}; train from it with", soft_wrap=True)
    console.print(f"  climlstm train {run_file} {options}", highlight=False, soft_wrap=True)


@contextmanager
def _shown(what: str) -> Iterator[Any]:
    """A bar on a terminal, lines elsewhere, for whatever reports (done, all)."""
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        said = -1

        def show(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (tenth := 10 * done // max(total, 1)) > said:
                said = tenth
                console.print(f"{what}: {done} of {total} pieces", highlight=False)

        yield show


@app.command()
def train(
    run_file: RunFile,
    resume: Annotated[bool, typer.Option(help="Go on from the latest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Delete an earlier run of this name.")] = False,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="CHECKPOINT", help="Start from another run's weights."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: 'auto' or HOST:PORT.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Training processes.", min=1)] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="In this process (or under torchrun), without Ray.")
    ] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train the forecaster that a run file describes."""
    from climlstm.config import load_config
    from climlstm.runs import train_run
    from climlstm.training.progress import Display

    overrides = [*set_, *([f"cluster.workers={workers}"] if workers else [])]
    if from_ is not None:
        start = from_ if "://" in from_ else Path(from_).resolve()
        overrides.append(f"training.start_from='{start}'")
    config = load_config(run_file, overrides)
    with Display(console) as display:
        checkpoint = train_run(
            config,
            resume=resume,
            overwrite=overwrite,
            under_ray=not plain,
            address=address,
            observe=display,
        )
    console.print(f"best checkpoint: {checkpoint}")


@app.command()
def tune(
    run_file: RunFile,
    resume: Annotated[bool, typer.Option(help="Go on with a sweep that was broken off.")] = False,
    address: ClusterAddress = None,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Try the values that the section 'tune' of a run file names; hopeless trials end early."""
    from climlstm.config import load_config
    from climlstm.training.tuning import write_sweep
    from climlstm.training.tuning_on_ray import tune_on_ray

    config = load_config(run_file, set_)
    sweep = tune_on_ray(
        config,
        resume=resume,
        address=address,
        say=lambda line: console.print(line, highlight=False, soft_wrap=True),
    )
    rows = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in sweep.rows()]
    print_table(list(sweep.trials.columns), rows, title="trials, the best first")
    for path in [*write_sweep(sweep), *_draw_sweep(sweep)]:
        console.print(f"wrote {path}", soft_wrap=True)
    console.print(f"train the best with: climlstm train {sweep.best}", soft_wrap=True)


def _draw_sweep(sweep: Any) -> list[Path]:
    from climlstm.plots import plot_sweep, save

    path = sweep.best.with_name("trials.png")
    save(plot_sweep(sweep.trials, sweep.curves, sweep.keys), path)
    return [path]


@app.command()
def submit(
    run_file: RunFile,
    address: DashboardAddress,
    ship: Annotated[
        list[Path], typer.Option(help="Code that the run needs: a wheel, a module, a package.")
    ] = [],  # noqa: B006
    retries: Annotated[
        int, typer.Option(help="New submissions when the driver or the head is lost.", min=0)
    ] = 3,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train as a job of a Ray cluster; an earlier run of this name goes on.

    The log is followed; interrupting ends only that, and the job runs on.
    """
    from climlstm.config import load_config
    from climlstm.training.jobs import submit_run

    config = load_config(run_file, set_)
    try:
        submit_run(config, address=address, ship=ship, retries=retries, say=_say)
    except KeyboardInterrupt:
        console.print(f"The job runs on; see 'climlstm jobs list --address {address}'.")


def _say(text: str) -> None:
    """The log of a job as it is."""
    console.out(text, end="", highlight=False)


jobs_app = typer.Typer(no_args_is_help=True, help="Jobs of a Ray cluster.")
app.add_typer(jobs_app, name="jobs")
JobId = Annotated[str, typer.Argument(help="The id that submit printed.", show_default=False)]


@jobs_app.command("list")
def jobs_list(address: DashboardAddress) -> None:
    """What runs, ran and waits."""
    from datetime import datetime

    from climlstm.training.jobs import list_jobs

    table = Table("job", "run", "status", "started", "message", box=None, pad_edge=False)
    for job in list_jobs(address):
        started = f"{datetime.fromtimestamp(job.started):%Y-%m-%d %H:%M}" if job.started else ""
        message = next(iter(job.message.splitlines()), "")
        table.add_row(job.id, job.run, job.status, started, message)
    console.print(table)


@jobs_app.command("logs")
def jobs_logs(job: JobId, address: DashboardAddress) -> None:
    """What a job has written."""
    from climlstm.training.jobs import job_log

    _say(job_log(address, job))


@jobs_app.command("stop")
def jobs_stop(job: JobId, address: DashboardAddress) -> None:
    """End a job; submitting its run again goes on from the last checkpoint."""
    from climlstm.training.jobs import stop_job

    console.print("stopping" if stop_job(address, job) else "it was not running")


@app.command()
def forecast(
    place: Annotated[str, typer.Argument(help="Folder (or URL) of a run, or of a checkpoint.")],
    out: Annotated[Path, typer.Option(help="The Zarr store to write.")],
    init: Annotated[
        list[str], typer.Option(help="Initial time; by default the whole test period.")
    ] = [],  # noqa: B006
    steps: Annotated[int | None, typer.Option(help="Lead steps.", min=1)] = None,
    members: Annotated[int | None, typer.Option(help="Members of an ensemble.", min=1)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the members' noise and perturbations.", min=0)
    ] = None,
    catalog: Catalog = None,
    source: Source = None,
    gpu: Annotated[bool, typer.Option(help="Compute on the GPU.")] = False,
    address: ClusterAddress = None,
) -> None:
    """Forecast into one Zarr store in WeatherBench's layout."""
    from climlstm.runs import find_trained, forecast_run, other_data, parse_times

    trained = find_trained(place)
    with console.status("forecasting") as status:
        number = forecast_run(
            trained,
            out,
            data=other_data(trained.config.data, catalog=catalog, source=source),
            init_times=parse_times(init) if init else None,
            steps=steps,
            members=members,
            seed=seed,
            gpu=gpu,
            address=address,
            progress=lambda done: status.update(f"forecasting: {done} initialisations"),
        )
    console.print(f"{number} forecasts in {out}")


@app.command()
def evaluate(
    store: Annotated[Path, typer.Argument(help="A forecast store.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables and curves.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="One HTML page to pass on.", show_default=False)
    ] = None,
    evaluator: Annotated[
        list[str],
        typer.Option(
            help="Evaluator, by name or as in a run file, '{name: …, options: {…}}'; by default "
            "those of the run file."
        ),
    ] = [],  # noqa: B006
    region: Annotated[list[str], typer.Option(help="Named region.")] = [],  # noqa: B006
    catalog: Catalog = None,
    source: Source = None,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Score what was trained or validated on, too.")
    ] = False,
    address: ClusterAddress = None,
) -> None:
    """Score forecasts beside persistence and climatology."""
    from climlstm.config import PluginChoice
    from climlstm.evaluation.tables import write_scores
    from climlstm.forecasting import open_forecasts
    from climlstm.runs import (
        audit_scoring,
        config_of,
        evaluate_run,
        evaluators_of,
        open_cube,
        other_data,
    )

    forecasts = open_forecasts(store)
    config = config_of(forecasts)
    data = other_data(config.data, catalog=catalog, source=source)
    chosen = [PluginChoice.parse(text) for text in evaluator] or evaluators_of(config, forecasts)
    if report is not None:
        from climlstm.report import with_spectra, write_report

        chosen = with_spectra(chosen)
    with console.status("scoring") as status:
        evaluation = evaluate_run(
            forecasts,
            data=data,
            evaluators=chosen,
            regions=region or None,
            allow_seen=allow_seen,
            address=address,
            progress=lambda share: status.update(f"scoring: {share:.0%}"),
        )
    print_scores(evaluation.scores)
    print_audit(audit := audit_scoring(forecasts))
    if out is not None:
        paths = [*write_scores(evaluation, out), *_draw_curves(evaluation, out)]
        verdict = out / "audit.json"
        verdict.write_text(json.dumps(audit.to_dict(), indent=1), encoding="utf-8")
        for path in [*paths, verdict]:
            console.print(f"wrote {path}")
    if report is not None:
        with console.status("drawing the report"):
            truth = open_cube(data or config.data)
            write_report(report, forecasts, evaluation, truth, config=config, evaluators=chosen)
        console.print(f"wrote {report}")


def print_scores(scores: Any) -> None:
    """Each metric as a table: a row for each variable and lead, a column for each model."""
    from climlstm.evaluation.tables import DEFINITIONS, score_table

    for metric in dict.fromkeys(scores["metric"]):
        console.print(DEFINITIONS.get(metric, ""), style="dim", highlight=False)
        for region in dict.fromkeys(scores[scores["metric"] == metric]["region"]):
            heading, rows = score_table(scores, metric, region=region)
            print_table(heading, rows, title=f"{metric}, {region}")


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, title: str) -> None:
    """Texts in columns, numbers to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, text in enumerate(heading):
        table.add_column(text, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _draw_curves(evaluation: Any, out: Path) -> list[Path]:
    from climlstm.plots import plot_ranks, plot_scores, save

    scores, paths = evaluation.scores, []
    for metric in ("rmse", "acc", "crps", "spread_skill"):
        if (scores["metric"] == metric).any():
            paths.append(out / f"{metric}.png")
            save(plot_scores(scores, metric=metric), paths[-1])
    if "rank_histogram" in evaluation.tables:
        paths.append(out / "rank_histogram.png")
        save(plot_ranks(evaluation.tables["rank_histogram"]), paths[-1])
    return paths


@app.command()
def plot(
    store: Annotated[Path, typer.Argument(help="A forecast store.")],
    out: Annotated[Path, typer.Option(help="The picture to write (PNG, PDF, SVG).")],
    variable: Annotated[str, typer.Option(help="Channel to draw, such as t2m.")],
    init: Annotated[str | None, typer.Option(help="Initial time; by default the first.")] = None,
    lead: Annotated[str | None, typer.Option(help="Lead time, such as 24h.")] = None,
    contours: Annotated[str | None, typer.Option(help="Channel to draw as lines.")] = None,
    projection: Annotated[str | None, typer.Option(help="Projection by name.")] = None,
    region: Annotated[str | None, typer.Option(help="Region by name.")] = None,
    truth: Annotated[bool, typer.Option(help="Beside truth and error.")] = True,
) -> None:
    """Map of a forecast (of an ensemble: its mean), the truth and the error; offline."""
    from climlstm.forecasting import ensemble_mean, open_forecasts
    from climlstm.plots import plot_forecast, save
    from climlstm.runs import config_of, open_cube

    forecasts = ensemble_mean(open_forecasts(store))
    figure = plot_forecast(
        forecasts,
        variable,
        truth=open_cube(config_of(forecasts).data) if truth else None,
        init_time=init,
        lead_time=lead,
        contours=contours,
        projection=projection,
        region=region,
    )
    save(figure, out)
    console.print(f"wrote {out}")


app.add_typer(plugins_app, name="plugins")

maps_app = typer.Typer(no_args_is_help=True, help="Coastlines on this machine.")
app.add_typer(maps_app, name="maps")


@maps_app.command("status")
def maps_status() -> None:
    """Which coastlines are here."""
    from climlstm.plots import status

    for coast in status():
        console.print(str(coast))


@maps_app.command("fetch")
def maps_fetch(
    resolution: Annotated[Literal["50m", "10m"], typer.Argument()] = "50m",
    folder: Annotated[Path | None, typer.Option(help="Where to; cartopy's own by default.")] = None,
) -> None:
    """Download finer coastlines; drawing never does."""
    from climlstm.plots import fetch

    for path in fetch(resolution, folder=folder):
        console.print(f"wrote {path}")


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show log messages.")] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Discreet("%(levelname)s: %(message)s"))
    if verbose:
        logging.getLogger("climlstm").setLevel(logging.INFO)


class _Discreet(logging.Formatter):
    """Hides passwords and tokens, whoever logs them."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def main() -> None:
    """Entry point of the command `climlstm`: errors a user can mend are shown without traceback."""
    # Idle OpenMP threads that spin slow each other down tenfold where other processes want the
    # cores too; this is read when torch is imported, here and in Ray's local workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with _interrupted_by_signals() as caught:
        try:
            app()
        except Stopped as stopped:
            _end(caught, str(stopped))
        except ClimLSTMError as error:
            _complain(str(error))
        except OSError as error:
            if error.errno is None or isinstance(error, BrokenPipeError):
                raise
            place = f" ({error.filename})" if error.filename else ""
            _complain(f"{error.strerror}{place}. What was finished before is kept.")
        except SystemExit:  # typer's, also after a KeyboardInterrupt
            if caught:
                _end(caught, "What was finished is kept; the same command goes on or starts anew.")
            raise


SECONDS_TO_UNWIND = 8.0
"""For threads that read or write when a command is interrupted."""


@contextmanager
def _interrupted_by_signals() -> Iterator[list[int]]:
    """SIGTERM interrupts as SIGINT does, and a command that then hangs is ended; yields which came.

    Training has handlers of its own, to save its state first.
    """
    caught: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        caught.append(number)
        watch = threading.Timer(SECONDS_TO_UNWIND, os._exit, [128 + number])
        watch.daemon = True
        watch.start()
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(caught: Sequence[int], message: str) -> NoReturn:
    """The status of a process ended by a signal, so that no script goes on as if all were done.

    Nobody waits for its threads. A training that has saved its state gives 143 for either signal.
    """
    complaints.print(message, highlight=False, soft_wrap=True)
    sys.stdout.flush()
    os._exit(128 + (caught[0] if caught else signal.SIGTERM))


def _complain(message: str) -> None:
    complaints.print(
        f"[bold red]Error:[/] {_escape(redact(message))}", highlight=False, soft_wrap=True
    )
    sys.exit(1)


def _escape(message: str) -> str:
    return importlib.import_module("rich.markup").escape(message)
