"""Commands that the plugin adds: `climlstm storms track` and `climlstm storms verify`."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from climlstm.data.sources.catalog import open_path
from climlstm.errors import DataError
from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm.files import write_text, writing
from climlstm_storms.formats import read_tracks
from climlstm_storms.persistence import baseline_scores
from climlstm_storms.scores import summarise
from climlstm_storms.selection import RECIPES, Preset
from climlstm_storms.tracker import track
from climlstm_storms.tracks import track_keys
from climlstm_storms.verification import Region, Rules, Verification, cases_of, verify
from climlstm_storms.write import write_tracks

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Storm tracks: find them in fields, score them.",
)

BOOTSTRAP = GroupBootstrap()

PresetOption = Annotated[Preset, typer.Option(help="Which storms.")]


@app.command("track")
def track_command(
    fields: Annotated[str, typer.Argument(help="Zarr store, NetCDF or GRIB files.")],
    out: Annotated[Path, typer.Option(help="Tracks: .csv, .nc (CF) or .dat (ATCF a-deck).")],
    preset: PresetOption = "any",
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="What the file calls a field: msl=PRMSL."),
    ] = None,
    link: Annotated[
        Literal["assign", "tempest"], typer.Option(help="tempest: by StitchNodes' rules.")
    ] = "assign",
    min_hours: Annotated[
        float | None, typer.Option(help="Least duration of a storm (h).  [default: the preset's]")
    ] = None,
    contour: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="PA DEG",
            help="Rise of pressure to a closed contour, and within which distance; 0 asks for "
            "none.  [default: the preset's]",
        ),
    ] = None,
    refine: Annotated[bool, typer.Option(help="Fit centres below the grid spacing.")] = True,
    closed_edges: Annotated[
        bool, typer.Option(help="Let the edge of a region, or missing data, close a contour.")
    ] = False,
) -> None:
    """Find storm tracks in fields of sea-level pressure, and wind where there is one."""
    recipe = RECIPES[preset]
    rise, within = contour or (recipe.detector.contour_pa, recipe.detector.contour_deg)
    if min(rise, within, min_hours or 0) < 0:
        raise DataError(f"--contour {rise:g} {within:g}, --min-hours {min_hours}: not below 0.")
    hours = recipe.selection.min_duration_h if min_hours is None else min_hours
    recipe = replace(
        recipe,
        detector=replace(
            recipe.detector,
            contour_pa=rise,
            contour_deg=within,
            refine=refine,
            closed_edges=closed_edges,
        ),
        linker=replace(recipe.linker, method=link),
        selection=replace(recipe.selection, min_duration_h=hours),
    )
    tracks = track(open_path(fields), recipe, names=_pairs(name or []))
    write_tracks(tracks, out)
    storms = track_keys(tracks).nunique()
    typer.echo(f"{storms} storms, {len(tracks)} points: {out}")


@app.command("verify")
def verify_command(
    forecast: Annotated[Path, typer.Argument(help="Tracks to be scored, of any known format.")],
    truth: Annotated[Path, typer.Option(help="True tracks: best tracks or an analysis'.")],
    out: Annotated[Path | None, typer.Option(help="Also write all scores to this CSV.")] = None,
    preset: PresetOption = "any",
    period: Annotated[
        tuple[datetime, datetime] | None,
        typer.Option(help="First and last time that FORECAST covers.  [default: of its tracks]"),
    ] = None,
    longest_lead: Annotated[
        float | None,
        typer.Option(help="Hours that forecasts run.  [default: the longest lead time]"),
    ] = None,
    max_distance: Annotated[float, typer.Option(help="Greatest distance of a match (km).")] = 300.0,
    min_overlap: Annotated[int, typer.Option(help="Common points that a match needs.")] = 2,
    latitude: Annotated[tuple[float, float], typer.Option(help="Southern and northern bound.")] = (
        *(-90.0, 90.0),
    ),
    longitude: Annotated[
        tuple[float, float], typer.Option(help="Western and eastern bound; may cross 180.")
    ] = (-180.0, 180.0),
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Column of FORECAST: slp=variable2."),
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(metavar="OURS=UNIT", help="Unit in FORECAST: wind=kt.")
    ] = None,
    all_times: Annotated[
        bool, typer.Option(help="Of best tracks, not only 00, 06, 12 and 18 UTC.")
    ] = False,
) -> None:
    """Score storm tracks against true ones: position, intensity, detection, genesis."""
    whole = (latitude, longitude) == ((-90.0, 90.0), (-180.0, 180.0))
    region = Region("global" if whole else "selected", latitude, longitude)
    rules = Rules(max_distance, min_overlap, RECIPES[preset].selection, region)
    true = read_tracks(truth, all_times=all_times)
    tracks = read_tracks(forecast, columns=_pairs(column or []), units=_pairs(unit or []))
    lead = None if longest_lead is None else pd.Timedelta(hours=longest_lead)
    times = None if period is None else (pd.Timestamp(period[0]), pd.Timestamp(period[1]))
    tables = []
    for name in tracks["source"].unique() if len(tracks) else [str(forecast)]:
        one = tracks[tracks["source"] == name]
        cases = cases_of(one, true, period=times, longest_lead=lead)
        found = verify(one, true, rules, cases=cases)
        if found.nothing and found.alarms.empty:
            raise DataError(f"{forecast}: {found.nothing} Truth: {truth}, preset '{preset}'.")
        _tell_coverage(name, true, rules, cases, found)
        scores = summarise(found, BOOTSTRAP, region.name)
        baseline = baseline_scores(true, found, region.name, BOOTSTRAP)
        tables.append(pd.concat([scores, baseline], ignore_index=True).assign(model=name))
        Console().print(score_report(tables[-1], f"Storm tracks: {name}"))
    if out is not None:
        with writing(out):
            write_text(out, pd.concat(tables).to_csv(index=False))


def _tell_coverage(
    name: str, true: pd.DataFrame, rules: Rules, cases: pd.DataFrame, found: Verification
) -> None:
    """Print which times count, and how many points of true storms lie outside them."""
    storms = rules.selection.choose(true)
    storms = storms[rules.region.holds(storms["lat"], storms["lon"])]
    outside = int((~storms["time"].isin(cases["time"])).sum())
    if outside:
        typer.echo(
            f"{name}: scored at its times, {cases['time'].min()} to {cases['time'].max()}; "
            f"{outside} of {len(storms)} points of true storms are at others and do not count. If "
            "more was searched, say so with --period or --longest-lead."
        )
    if found.nothing:
        typer.echo(found.nothing)


def score_report(scores: pd.DataFrame, title: str = "Storm tracks") -> Table:
    """The scores that one looks at first, a row for each lead time; without empty columns."""
    there = set(scores.loc[scores["value"].notna(), "metric"])
    shown = [(metric, heading) for metric, heading in REPORTED if metric in there]
    report = Table("lead", title=title)
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
            raise DataError(f"'{text}': expected OURS=THEIRS, such as msl=PRMSL or wind=kt.")
        pairs[ours] = theirs
    return pairs
