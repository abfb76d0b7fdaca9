"""Commands that train: train, tune, submit and jobs."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from climlstm.cli.arguments import ClusterAddress, DashboardAddress, Overrides, RunFile
from climlstm.cli.printing import console, print_command, print_table

JobId = Annotated[str, typer.Argument(help="The id that submit printed.", show_default=False)]


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
    seeds: Annotated[
        int,
        typer.Option(help="Runs that differ by their seed; with --address side by side.", min=1),
    ] = 1,
    plain: Annotated[
        bool, typer.Option("--plain", help="In this process (or under torchrun), without Ray.")
    ] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train the forecaster that a run file describes."""
    from climlstm import load_config, runs
    from climlstm.advice import one_line
    from climlstm.training.progress import Display

    overrides = [*set_, *([f"cluster.workers={workers}"] if workers else [])]
    if from_ is not None:
        start = from_ if "://" in from_ else Path(from_).resolve()
        overrides.append(f"training.start_from={one_line(str(start))}")
    config = load_config(run_file, overrides)
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "under_ray": not plain}
    _say_once(f"training {config.name}{'' if plain else ' under Ray'}: getting ready")
    with Display(console) as display:
        how |= {"address": address, "observe": display}
        if seeds > 1:
            checkpoints = runs.train_seeds(config, seeds, **how)
        else:
            checkpoints = [runs.train(config, **how)]
    for checkpoint in checkpoints:
        _say_once(f"best checkpoint: {checkpoint}")


def _say_once(text: str) -> None:
    """Print text in one of torchrun's processes."""
    if os.environ.get("RANK", "0") == "0":
        console.print(text)


def tune(
    run_file: RunFile,
    resume: Annotated[bool, typer.Option(help="Go on with a sweep that was broken off.")] = False,
    address: ClusterAddress = None,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Try the values that the section 'tune' of a run file names; hopeless trials end early."""
    from climlstm import load_config, runs

    config = load_config(run_file, set_)
    sweep, written = runs.tune(config, resume=resume, address=address, say=console.print)
    rows = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in sweep.rows()]
    print_table(list(sweep.trials.columns), rows, title="trials, the best first")
    for path in written:
        console.print(f"wrote {path}")
    console.print("train the best with")
    print_command("climlstm", "train", str(sweep.best))


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
    from climlstm import load_config
    from climlstm.on_ray.jobs import submit_run

    config = load_config(run_file, set_)
    try:
        submit_run(config, address=address, ship=ship, retries=retries, say=_say)
    except KeyboardInterrupt:
        console.print("The job runs on; see")
        print_command("climlstm", "jobs", "list", "--address", address)


def _say(text: str) -> None:
    """Print text of a log as it is."""
    console.out(text, end="", highlight=False)


def jobs_list(address: DashboardAddress) -> None:
    """List jobs that run, wait or have ended."""
    from climlstm.on_ray.jobs import list_jobs

    rows = []
    for job in list_jobs(address):
        started = f"{datetime.fromtimestamp(job.started):%Y-%m-%d %H:%M}" if job.started else ""
        message = next(iter(job.message.splitlines()), "")
        rows.append((job.id, job.run, job.status, started, message))
    print_table(("job", "run", "status", "started", "message"), rows, numbers_from=5)


def jobs_logs(job: JobId, address: DashboardAddress) -> None:
    """Print the log of a job."""
    from climlstm.on_ray.jobs import job_log

    _say(job_log(address, job))


def jobs_stop(job: JobId, address: DashboardAddress) -> None:
    """End a job; submitting its run again goes on from the last checkpoint."""
    from climlstm.on_ray.jobs import stop_job

    console.print("stopping" if stop_job(address, job) else "it was not running")
