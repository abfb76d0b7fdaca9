"""Commands on what was trained: forecast and evaluate; and the demo, which does it all."""

from pathlib import Path
from typing import Annotated

import typer

from climlstm.cli.arguments import Catalog, ClusterAddress, Source
from climlstm.cli.printing import console, print_audit, print_scores


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


def forecast(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Folder (or URL) of a run, or of a checkpoint; several make one ensemble."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The Zarr store to write.")],
    init: Annotated[
        list[str],
        typer.Option(
            help="Initial time; 'latest', the newest of the source; 'valid', all of the validation "
            "period; by default the whole test period, or the latest of a source without it."
        ),
    ] = [],  # noqa: B006
    steps: Annotated[
        str | None,
        typer.Option(help="Lead steps: their number, or how far ahead, such as 10d, '5 years'."),
    ] = None,
    members: Annotated[int | None, typer.Option(help="Members of an ensemble.", min=1)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the members' noise and perturbations.", min=0)
    ] = None,
    perturbation: Annotated[
        float | None,
        typer.Option(help="Spread of initial states, as a share of the climate's.", min=0),
    ] = None,
    catalog: Catalog = None,
    source: Source = None,
    gpu: Annotated[
        bool | None, typer.Option(help="Compute on the GPU; by default as the run was trained.")
    ] = None,
    verifiable: Annotated[
        bool, typer.Option("--verifiable", help="Leave out starts whose leads end after the data.")
    ] = False,
    address: ClusterAddress = None,
) -> None:
    """Forecast into one Zarr store in WeatherBench's layout."""
    from climlstm import runs

    with console.status("forecasting") as status:
        forecasts = runs.forecast(
            places,
            out,
            catalog=catalog,
            source=source,
            init_times=init or None,
            steps=steps,
            members=members,
            seed=seed,
            perturbation=perturbation,
            gpu=gpu,
            verifiable=verifiable,
            address=address,
            progress=lambda done: status.update(f"forecasting: {round(done, 2):g} initialisations"),
        )
    console.print(f"{forecasts.sizes['init_time']} forecasts in {out}")


def calibrate(
    store: Annotated[Path, typer.Argument(help="Forecasts of an ensemble.")],
    by: Annotated[Path, typer.Option(help="Forecasts by the same run of its validation period.")],
    out: Annotated[Path, typer.Option(help="The Zarr store to write.")],
) -> None:
    """Correct mean and spread of an ensemble by how its forecasts of another period turned out."""
    from climlstm import runs

    with console.status("calibrating"):
        forecasts = runs.calibrate(store, by, out)
    console.print(f"{forecasts.sizes['init_time']} calibrated forecasts in {out}")


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
            help="Evaluator besides those of the run file, by name or as there, "
            "'{name: …, options: {…}}'."
        ),
    ] = [],  # noqa: B006
    region: Annotated[
        list[str], typer.Option(help="europe, box:45..55,0..20, 'land_mask > 0.5'.")
    ] = [],  # noqa: B006
    baseline: Annotated[
        list[str],
        typer.Option(
            help="Forecast without a network to score beside: persistence, climatology, damped, "
            "linear; by default those of the run file."
        ),
    ] = [],  # noqa: B006
    catalog: Catalog = None,
    source: Source = None,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Score what was trained or validated on, too.")
    ] = False,
    address: ClusterAddress = None,
) -> None:
    """Score forecasts beside persistence, climatology and linear models."""
    from climlstm import runs

    with console.status("scoring") as status:
        evaluation = runs.evaluate(
            store,
            catalog=catalog,
            source=source,
            besides=evaluator,
            regions=region,
            baselines=baseline or None,
            allow_seen=allow_seen,
            out=out,
            report=report,
            address=address,
            progress=lambda share: status.update(f"scoring: {share:.0%}"),
        )
    print_scores(evaluation.scores)
    if evaluation.audit is not None:
        print_audit(evaluation.audit)
    for path in evaluation.written:
        console.print(f"wrote {path}")
