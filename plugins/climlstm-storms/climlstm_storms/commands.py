"""Commands that the plugin adds: `climlstm storms track` and `climlstm storms verify`."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm.files import write_text, writing
from climlstm_storms.formats import read_tracks
from climlstm_storms.persistence import baseline_scores
from climlstm_storms.scores import summarise
from climlstm_storms.selection import RECIPES, Preset
from climlstm_storms.tracker import open_fields, track
from climlstm_storms.tracks import track_keys
from climlstm_storms.verification import Region, Rules, verify
from climlstm_storms.write import write_tracks

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Storm tracks: find them in fields, score them.",
)

PresetOption = Annotated[Preset, typer.Option(help="Which storms.")]


@app.command("track")
def track_command(
    fields: Annotated[str, typer.Argument(help="Zarr store or NetCDF file.")],
    out: Annotated[Path, typer.Option(help="Tracks: .csv, .nc (CF) or .dat (ATCF a-deck).")],
    preset: PresetOption = "any",
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="What the file calls a field: msl=PRMSL."),
    ] = None,
    link: Annotated[
        Literal["assign", "tempest"], typer.Option(help="tempest: by StitchNodes' rules.")
    ] = "assign",
    refine: Annotated[bool, typer.Option(help="Fit centres below the grid spacing.")] = True,
    closed_edges: Annotated[
        bool, typer.Option(help="Let the edge of a region, or missing data, close a contour.")
    ] = False,
) -> None:
    """Find storm tracks in fields of sea-level pressure, and wind where there is one."""
    recipe = RECIPES[preset]
    recipe = replace(
        recipe,
        detector=replace(recipe.detector, refine=refine, closed_edges=closed_edges),
        linker=replace(recipe.linker, method=link),
    )
    tracks = track(open_fields(fields), recipe, names=_pairs(name or []))
    write_tracks(tracks, out)
    storms = track_keys(tracks).nunique()
    typer.echo(f"{storms} storms, {len(tracks)} points: {out}")


@app.command("verify")
def verify_command(
    forecast: Annotated[Path, typer.Argument(help="Tracks to be scored, of any known format.")],
    truth: Annotated[Path, typer.Option(help="True tracks: best tracks or an analysis'.")],
    out: Annotated[Path | None, typer.Option(help="Also write all scores to this CSV.")] = None,
    preset: PresetOption = "any",
    max_distance: Annotated[float, typer.Option(help="Greatest distance of a match (km).")] = 300.0,
    min_overlap: Annotated[int, typer.Option(help="Common points that a match needs.")] = 2,
    latitude: Annotated[tuple[float, float], typer.Option(help="Southern and northern bound.")] = (
        -90.0,
        90.0,
    ),
    longitude: Annotated[
        tuple[float, float], typer.Option(help="Western and eastern bound; may cross 180.")
    ] = (-180.0, 180.0),
) -> None:
    """Score storm tracks against true ones: position, intensity, detection, genesis."""
    whole = (latitude, longitude) == ((-90.0, 90.0), (-180.0, 180.0))
    region = Region("global" if whole else "selected", latitude, longitude)
    rules = Rules(max_distance, min_overlap, RECIPES[preset].selection, region)
    true, bootstrap = read_tracks(truth), GroupBootstrap()
    found = verify(read_tracks(forecast), true, rules)
    tables = [
        summarise(found, bootstrap, region.name),
        baseline_scores(true, found, region.name, bootstrap),
    ]
    scores = pd.concat(tables, ignore_index=True)
    if out is not None:
        with writing(out):
            write_text(out, scores.to_csv(index=False))
    Console().print(score_report(scores))


def score_report(scores: pd.DataFrame) -> Table:
    """The scores that one looks at first, a row for each lead time; without empty columns."""
    there = set(scores.loc[scores["value"].notna(), "metric"])
    shown = [(metric, heading) for metric, heading in REPORTED if metric in there]
    report = Table("lead", title="Storm tracks")
    for _, heading in shown:
        report.add_column(heading, justify="right")
    for lead in scores["lead_time"].drop_duplicates().sort_values(na_position="last"):
        same = scores["lead_time"].isna() if pd.isna(lead) else scores["lead_time"] == lead
        values = scores[same].drop_duplicates("metric").set_index("metric")
        cells = [_cell(values, metric) for metric, _ in shown]
        report.add_row("all" if pd.isna(lead) else f"{lead / pd.Timedelta(hours=1):g} h", *cells)
    return report


REPORTED = (
    ("position_error", "error km"),
    ("position_error_median", "median"),
    ("persistence_track_error", "persistence"),
    ("slp_bias", "hPa"),
    ("wind_bias", "m/s"),
    ("pod", "POD"),
    ("far", "FAR"),
    ("pod_storms", "POD storms"),
    ("far_tracks", "FAR tracks"),
)


def _cell(values: pd.DataFrame, metric: str) -> str:
    """A value; position errors with their interval."""
    if metric not in values.index or pd.isna(values.loc[metric, "value"]):
        return ""
    value, low, high = values.loc[metric, ["value", "ci_low", "ci_high"]]
    digits = 2 if metric.startswith(("pod", "far")) else 1 if abs(value) < 10 else 0
    if pd.isna(low) or metric != "position_error":
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _pairs(names: Iterable[str]) -> dict[str, str]:
    """{"msl": "PRMSL"} from "msl=PRMSL"."""
    pairs = {}
    for text in names:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise DataError(f"--name {text}: expected OURS=THEIRS, such as msl=PRMSL.")
        pairs[ours] = theirs
    return pairs
