"""The sections of a report, each from what it is about to HTML; empty where there is nothing."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from climlstm import html, plots, plugins
from climlstm.audit.findings import Finding, findings_table
from climlstm.calendars import day_text
from climlstm.config import Config, PluginChoice, dump_config
from climlstm.data.knowledge import label_of
from climlstm.evaluation.evaluate import Evaluation
from climlstm.evaluation.tables import DEFINITIONS, Draw, score_table
from climlstm.grid import grid_of
from climlstm.html import Markup
from climlstm.plots import metric_name as _name
from climlstm.report import page
from climlstm.report.verdict import Chosen, favourites
from climlstm.steps import lead_text

TABLE_LEADS = ("1D", "3D", "5D", "7D", "10D")
TABLE_MONTHS = (1, 3, 6, 9, 12)
"""Lead times of the short table of scores; the others can be unfolded."""

SHOWN = 6
"""Variables of which curves and spectra are shown at once."""


def what_was_run(forecasts: xr.Dataset, config: Config, provenance: dict[str, Any]) -> Markup:
    """Source, grid, periods, network, checkpoint."""
    data, spans = config.data, provenance.get("seen", {})
    rows, columns = grid_of(forecasts).shape
    periods = data.periods
    pairs: list[tuple[str, Any]] = [
        ("Data", f"source '{data.source}' of {_place(data.catalog)}"),
        ("Grid", f"{rows} × {columns} points, {_extent(forecasts)}"),
        ("Forecast", ", ".join(data.predicted)),
        ("Known besides", ", ".join([*data.forcing, *data.static]) or "nothing"),
        ("Step", str(data.step)),
        ("Trained on", _span(spans.get("train") or periods.train)),
        ("Chosen on", _span(spans.get("valid") or periods.valid)),
        ("Tested on", _span(periods.test)),
        ("Network", f"{config.model.name}, {_settings(config)}"),
        ("Training", _training(config, provenance)),
        ("Checkpoint", f"{_place(provenance.get('checkpoint'))} (step {provenance.get('step')})"),
        ("Its digest", Markup(f"<code>{html.text(str(provenance.get('digest'))[:16])}…</code>")),
        ("Software", ", ".join(f"{k} {v}" for k, v in provenance.get("versions", {}).items())),
    ]
    return page.scrolling(html.facts(pairs))


def audit(provenance: dict[str, Any]) -> Markup:
    """The verdict of the audit before training, and all that it found."""
    found = provenance.get("audit")
    if not found:
        return page.paragraph("The forecasts do not say that an audit was made before training.")
    findings = [Finding(**finding) for finding in found["findings"]]
    passed = found["passed"]
    verdict = Markup(
        f"{html.badge('passed' if passed else 'failed', 'passed' if passed else 'failed')} "
        f"{len(findings) or 'No'} finding{'' if len(findings) == 1 else 's'}. It looked for leaks "
        "between the periods and into statistics and climatology, for gaps, doubled times, wrong "
        f"units and implausible values, on {found['steps_read']} steps of the data "
        f"<code>{html.text(str(found['digest'])[:12])}</code>."
    )
    return Markup(page.paragraph(verdict) + page.scrolling(findings_table(findings)))


def scores(evaluation: Evaluation, model: str) -> Markup:
    """Curves and tables with intervals, beside the baselines."""
    table = _in_order(evaluation.scores)
    parts = [
        page.paragraph(
            "Bands and brackets are intervals of 95 %, from a bootstrap of blocks of "
            "initialisations: neighbouring forecasts resemble one another."
        )
    ]
    for metric in ("rmse", "acc"):
        if (table["metric"] == metric).any():
            parts += [page.subheading(f"{_name(metric)} against lead time"), _curves(table, metric)]
    for metric in dict.fromkeys(table["metric"]):
        if metric in DEFINITIONS:
            parts.append(_tables(table, metric))
    return Markup("".join(parts))


def _in_order(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows by variable in the one order of the page, that of `favourites`."""
    levels = scores["level"].map(lambda level: "" if pd.isna(level) else f"{level:g}")
    names = scores["variable"].astype(str) + levels
    order = {name: place for place, name in enumerate(favourites(dict.fromkeys(names)))}
    return scores.iloc[np.argsort(names.map(order).to_numpy(), kind="stable")]


def _curves(table: pd.DataFrame, metric: str) -> Markup:
    chosen = table[table["metric"] == metric]
    level = chosen["level"].map(lambda value: "" if pd.isna(value) else f"{value:g}")
    names = favourites(dict.fromkeys(chosen["variable"].astype(str) + level))
    drawn = [
        page.picture(
            plots.svg_of(plots.plot_scores(table, metric=metric, variables=[name], width=4.6)),
            f"{_name(metric)} of {_label(name)} against lead time, beside the baselines",
        )
        for name in names
    ]
    more = html.details("more variables", page.row(drawn[SHOWN:])) if drawn[SHOWN:] else ""
    return Markup(page.row(drawn[:SHOWN]) + more)


def _tables(table: pd.DataFrame, metric: str) -> Markup:
    """A few lead times at once, all the others in a box that opens; region by region."""
    chosen = table = _readable(table[table["metric"] == metric])
    parts = []
    for region in dict.fromkeys(chosen["region"]):
        here = chosen[chosen["region"] == region]
        months = here["lead_time"].dtype.kind in "iuf"
        leads = list(TABLE_MONTHS if months else map(pd.Timedelta, TABLE_LEADS))
        leads = [lead for lead in leads if (here["lead_time"] == lead).any()]
        short = score_table(table, metric, region=region, leads=leads or None)
        whole = score_table(table, metric, region=region, leads=list(here["lead_time"].unique()))
        caption = Markup(f"{html.text(_name(metric))}, {html.text(region)}")
        parts.append(
            page.scrolling(html.table(short[0], short[1], caption=caption, numbers_from=1))
        )
        if len(whole[1]) > len(short[1]):
            every = page.scrolling(html.table(whole[0], whole[1], numbers_from=1))
            parts.append(html.details("every lead time", every))
    said = html.quiet(f"{_name(metric)}: {DEFINITIONS[metric]}.")
    body = Markup(f"<p>{said}</p>" + "".join(parts))
    return body if metric == "rmse" else html.details(f"{_name(metric)} in numbers", body)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Scores in the units that people read."""
    parts = []
    for (variable, level, units), rows in table.groupby(
        ["variable", "level", "units"], dropna=False, sort=False
    ):
        name = f"{variable}{'' if pd.isna(level) else format(level, 'g')}"
        look = plots.look_of_channel(name, None if pd.isna(units) else units)
        numbers = {n: rows[n] * look.conversion.scale for n in ("value", "ci_low", "ci_high")}
        parts.append(rows.assign(**numbers, units=look.units or "1"))
    return pd.concat(parts)


def maps(forecasts: xr.Dataset, truth: xr.Dataset, typical: Chosen, worst: Chosen | None) -> Markup:
    """Forecast, truth and error of the median case in two variables, and of the worst."""
    second = [n for n in favourites(forecasts.data_vars) if n[0] != typical.variable[0]][:1]
    chosen = [typical, *([worst] if worst else [])]
    chosen[1:1] = [Chosen(n, typical.init_time, typical.lead_time, typical.why) for n in second]
    return Markup("".join(_maps(forecasts, truth, each) for each in chosen))


def _maps(forecasts: xr.Dataset, truth: xr.Dataset, case: Chosen) -> Markup:
    figures = plots.plot_panels(
        forecasts, case.variable, truth=truth, init_time=case.init_time, lead_time=case.lead_time
    )
    names = ("forecast", "truth", "error")
    when = _when(forecasts, case)
    drawn = [
        page.picture(plots.svg_of(figure), f"Map of the {name} of {_label(case.variable)}, {when}")
        for figure, name in zip(figures, names, strict=True)
    ]
    return Markup(page.subheading(f"{_label(case.variable)} {when}: {case.why}") + page.row(drawn))


def _when(forecasts: xr.Dataset, case: Chosen) -> str:
    """Start and lead of a case, and what its forecast was allowed to know."""
    text = f"from {_moment(case.init_time)}, {lead_text(case.lead_time)} ahead"
    return " ".join([text, label_of(forecasts)]).strip()


def ensemble(forecasts: xr.Dataset, truth: xr.Dataset, typical: Chosen) -> Markup:
    """Mean and spread, and spaghetti with the truth, of the median case; nothing of one member."""
    if forecasts.sizes.get("realization", 1) < 2:
        return Markup("")
    chosen: dict[str, Any] = {"init_time": typical.init_time, "lead_time": typical.lead_time}
    when = _when(forecasts, typical)
    spread = plots.plot_ensemble(forecasts, typical.variable, "spread", width=6.9, **chosen)
    lines = plots.plot_ensemble(
        forecasts, typical.variable, "spaghetti", truth=truth, width=6.9, **chosen
    )
    drawn = [
        page.picture(plots.svg_of(figure), f"Map of {what} of {_label(typical.variable)}, {when}")
        for figure, what in ((spread, "mean and spread"), (lines, "single members and truth"))
    ]
    return Markup(page.subheading(f"{_label(typical.variable)} {when}") + page.row(drawn))


def calibration(evaluation: Evaluation, model: str) -> Markup:
    """Spread beside error, ranks of the truth, reliability of events; nothing of one member."""
    figures = plots.calibration_figures(evaluation.scores, evaluation.tables, model)
    said = page.paragraph(
        "An honest ensemble spreads as much as its mean errs, has the truth at each rank equally "
        "often, and its probabilities lie on the diagonal."
    )
    drawn = [page.picture(plots.svg_of(f), _name(name)) for name, f in figures.items()]
    return Markup(said * bool(drawn) + "".join(drawn))


def storms(
    evaluation: Evaluation,
    truth: xr.Dataset,
    evaluators: Sequence[PluginChoice],
    model: str,
    typical: Chosen,
) -> Markup:
    """Tracks and scores of each evaluator that finds tracks; nothing where none did."""
    return Markup(
        "".join(_storms(evaluation, truth, choice, model, typical) for choice in evaluators)
    )


def _storms(
    evaluation: Evaluation, truth: xr.Dataset, choice: PluginChoice, model: str, typical: Chosen
) -> Markup:
    tracker = plugins.create("evaluators", choice.name, choice.options)
    if not hasattr(tracker, "tracks") or choice.label not in evaluation.cases:
        return Markup("")
    cases = evaluation.cases[choice.label]
    tracks = tracker.tracks(cases[cases["model"] == model].drop(columns="model"))
    predicted = tracks[tracks["source"] != "truth"]
    predicted = predicted[predicted["init_time"] == pd.Timestamp(typical.init_time)]
    shown = getattr(tracker, "headline", ())
    parts = [_storm_scores(evaluation.scores, shown, model), _definitions(tracker, shown)]
    if len(predicted):
        figure = plots.plot_tracks(
            predicted,
            truth=tracks[tracks["source"] == "truth"],
            field=truth["msl"].sel(time=typical.init_time) if "msl" in truth else None,
            init_time=typical.init_time,
        )
        longest = lead_text(predicted["lead_time"].max())
        caption = (
            f"Tracks forecast from {_moment(typical.init_time)}, up to {longest} ahead, and the "
            "true ones. Colours are the pressure in the centre of each forecast storm; lines the "
            "pressure of the analysis at the start."
        )
        parts.append(page.picture(plots.svg_of(figure), "Map of storm tracks", caption, wide=True))
    return Markup("".join(parts))


def _definitions(evaluator: Any, metrics: Sequence[str]) -> Markup:
    """A line on each metric of an evaluator, as it explains itself in `definitions`."""
    said = getattr(evaluator, "definitions", {})
    lines = [f"{_name(metric)}: {said[metric]}." for metric in metrics if metric in said]
    return Markup("".join(f"<p>{html.quiet(line)}</p>" for line in lines))


def _storm_scores(table: pd.DataFrame, metrics: Sequence[str], model: str) -> Markup:
    """A row for each lead time, a column for each of the evaluator's headline metrics."""
    rows: dict[str, list[str]] = {}
    shown = [metric for metric in metrics if (table["metric"] == metric).any()]
    for place, metric in enumerate(shown):
        region = table[table["metric"] == metric]["region"].iloc[0]
        heading, found = score_table(table, metric, region=region)
        column = heading.index(model) if model in heading else 2
        for row in found:
            rows.setdefault(row[1], ["–"] * len(shown))[place] = row[column]
    if not rows:
        return Markup("")
    units = {m: table[table["metric"] == m]["units"].iloc[0] for m in shown}
    names = [f"{_name(m)}{f' ({u})' if u not in (None, '1') else ''}" for m, u in units.items()]
    body = [(lead, *values) for lead, values in rows.items()]
    return page.scrolling(html.table(("lead", *names), body, numbers_from=1))


def spectra(evaluation: Evaluation, model: str) -> Markup:
    """Power by wavelength, where the evaluator has run."""
    table = evaluation.tables.get("power_spectrum")
    if table is None or table.empty:
        return Markup("")
    said = (
        "Variance by wavelength along latitude circles between 30° and 60°. A forecast whose line "
        "falls below the truth at short waves has become smooth: it hedges. One whose line stays "
        "above it makes noise."
    )
    names = favourites(table["variable"].unique())
    drawn = [
        page.picture(
            plots.svg_of(plots.plot_spectra(table, name, model=model)),
            f"Power spectrum of {_label(name)}, forecast and truth",
        )
        for name in names
    ]
    more = html.details("more variables", page.row(drawn[SHOWN:])) if drawn[SHOWN:] else ""
    return Markup(page.paragraph(said) + page.row(drawn[:SHOWN]) + more)


def drawn(draw: Draw) -> Markup:
    """Figures that an evaluator draws of itself."""
    pictures = [page.picture(plots.svg_of(figure), title) for title, figure in draw().items()]
    return page.row(pictures)


def run_file(config: Config) -> Markup:
    """The run file, complete with defaults."""
    return html.details(
        "The run file, complete with defaults", page.preformatted(dump_config(config))
    )


def _place(path: Any) -> str:
    """The end of a path, without the folders of the machine where it lay; an URL whole."""
    text = str(path)
    return text if "://" in text else "/".join(PurePath(text).parts[-3:]).removeprefix("//")


def _label(channel: str) -> str:
    """'500 hPa geopotential'"""
    return plots.look_of_channel(channel, None).label


def _extent(forecasts: xr.Dataset) -> str:
    grid = grid_of(forecasts)
    return (
        f"{grid.latitude.min():.5g} to {grid.latitude.max():.5g}° north, "
        f"{grid.longitude[0, 0]:.5g} to {grid.longitude[0, -1]:.5g}° east"
    )


def _span(span: Sequence[Any]) -> str:
    first, last = (pd.Timestamp(moment) for moment in span)
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _settings(config: Config) -> str:
    options = [f"{name} {value}" for name, value in config.model.options.items()]
    return ", ".join([f"history {config.model.history}", *options])


def _training(config: Config, provenance: dict[str, Any]) -> str:
    t = config.training
    loss = provenance.get("valid_loss")
    found = "" if loss is None else f"; validation loss {loss:.4g}"
    return (
        f"{t.epochs} epoch{'s' if t.epochs > 1 else ''}, batches of {t.batch_size}, "
        f"loss {t.loss.name} over {t.horizon} steps, seed {t.seed}{found}"
    )


def _moment(time: Any) -> str:
    moment = time if isinstance(time, cftime.datetime) else pd.Timestamp(time)
    return f"{day_text(moment)} {moment.hour:02} UTC"
