"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

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
