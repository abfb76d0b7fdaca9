"""The command `climlstm`: all of its commands, in the order in which help shows them."""

import logging
import sys
from typing import Annotated

import typer

from climlstm.cli import plugins
from climlstm.cli.data import check, doctor, init, inspect, prepare, schema, sources
from climlstm.cli.forecasts import calibrate, demo, evaluate, forecast
from climlstm.cli.group import Commands
from climlstm.cli.plot import plot
from climlstm.cli.printing import complaints
from climlstm.cli.training import jobs_list, jobs_logs, jobs_stop, submit, train, tune
from climlstm.version import __version__

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Weather and climate forecasting with ConvLSTM networks, from catalog to forecast map.",
)
for command in (
    demo, sources, inspect, init, check, prepare, train, tune, submit, forecast, calibrate,
    evaluate, plot, schema, doctor,
):  # fmt: skip
    app.command()(command)

jobs = typer.Typer(no_args_is_help=True, help="Jobs of a Ray cluster.")
jobs.command("list")(jobs_list)
jobs.command("logs")(jobs_logs)
jobs.command("stop")(jobs_stop)
app.add_typer(jobs, name="jobs")

app.add_typer(plugins.app, name="plugins")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"climlstm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show log messages.")] = False,
) -> None:
    if sys.stderr.isatty() and "--help" not in sys.argv:  # what a command imports takes seconds
        complaints.print(f"climlstm {context.invoked_subcommand}: starting", style="dim")
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Discreet("%(levelname)s: %(message)s"))
    if verbose:
        logging.getLogger("climlstm").setLevel(logging.INFO)


class Discreet(logging.Formatter):
    """Hides passwords and tokens in every log message."""

    def format(self, record: logging.LogRecord) -> str:
        from climlstm.config.secrets import redact  # with it comes pydantic; help does without

        return redact(super().format(record))
