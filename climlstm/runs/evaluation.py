"""Score forecasts of a run, or of any other model."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from climlstm import plugins
from climlstm.audit.audit import Audit
from climlstm.audit.leaks import check_scoring
from climlstm.config import Config, EvaluationConfig, PluginChoice, chosen_plugins
from climlstm.data.forecasts import PROVENANCE, config_of, provenance_of
from climlstm.data.knowledge import named
from climlstm.data.others import open_cube
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import period_of
from climlstm.errors import ConfigError, DataError
from climlstm.evaluation.baselines import BASELINES, ready
from climlstm.evaluation.evaluate import Evaluation
from climlstm.evaluation.evaluate import evaluate as score
from climlstm.evaluation.tables import write_scores
from climlstm.files import write_text, writing
from climlstm.forecasting import open_forecasts
from climlstm.plugins import Baseline, Evaluator, TrainingPeriod
from climlstm.runs.clusters import spread_over
from climlstm.runs.forecasting import other_data

logger = logging.getLogger(__name__)

OF_ENSEMBLES = ("crps", "spread_skill", "rank_histogram")
"""Evaluators of ensembles."""

FILES = (".nc", ".zarr", ".csv", ".json", ".html", ".png", ".pdf", ".parquet", ".yaml")
"""Endings of files and stores, which no folder for scores should have."""


@dataclass(frozen=True)
class RunEvaluation(Evaluation):
    """Scores, the audit of the scoring, and the files that were written."""

    audit: Audit | None = None
    """Findings that make the scores worthless; None for forecasts of another model."""
    written: tuple[Path, ...] = ()


def evaluate(
    forecasts: xr.Dataset | str | Path,
    truth: xr.Dataset | None = None,
    *,
    catalog: str | None = None,
    source: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    evaluators: Iterable[PluginChoice | Evaluator | str] = (),
    besides: Iterable[PluginChoice | Evaluator | str] = (),
    regions: Sequence[str] = (),
    model: str | None = None,
    baselines: Iterable[PluginChoice | Baseline | str] | None = None,
    climatology: xr.Dataset | None = None,
    unusable: Iterable[Any] = (),
    allow_seen: bool = False,
    out: str | Path | None = None,
    report: str | Path | None = None,
    address: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> RunEvaluation:
    """Score forecasts beside persistence and climatology.

    forecasts: a forecast store or an open one; of another model than ours, `truth` is needed.
    truth, or catalog, source, parameters: by default the data that the forecaster was trained on.
    evaluators, regions: by default as the run file has them, and for an ensemble its scores too;
        evaluators by name, as in a run file, or as objects; `besides`: in addition to those.
    model: name of the forecasts in the tables; by default that of the network.
    baselines: as evaluators; by default those of the run file, or persistence and climatology.
    climatology: (hour, dayofyear, ...) or (month, ...); by default that of the training period.
    unusable: times at which the truth has missing values, besides those known from training.
    allow_seen: score also what the forecaster was trained or validated on.
    out: folder for tables and curves. report: one HTML page to pass on.
    address: of a Ray cluster over which the initialisations are spread; None: this process.
    progress: is called with the share of initialisations that have been scored.
    Raises DataError where scores would say nothing of skill (see `audit_scoring`), unless allowed.

    >>> import climlstm
    >>> evaluation = climlstm.evaluate("small.zarr", regions=["europe"])
    >>> sorted(evaluation.scores["model"].unique())
    ['climatology', 'convlstm', 'persistence']
    """
    opened = open_forecasts(forecasts) if isinstance(forecasts, str | Path) else forecasts
    _check_places(opened, out, report)
    with plugins.resolved_as(provenance_of(opened) if PROVENANCE in opened.attrs else {}):
        data = RunData(config_of(opened)) if PROVENANCE in opened.attrs else None
        model, other = named(model, opened), (catalog, source, parameters)
        audit, known = _known(opened, data, truth, other, climatology, allow_seen=allow_seen)
        known |= _given(regions=tuple(regions) or None, model=model, baselines=baselines)
        known["baselines"] = _baselines(known["baselines"], data, opened)
        known["unusable"] = [*known.get("unusable", ()), *unusable]
        chosen = _chosen(evaluators, besides, data, opened, spectra=report is not None)
        made = {c.label: plugins.create("evaluators", c.name, c.options) for c in chosen}
        with spread_over(address) as executor:
            found = score(opened, **known, evaluators=made, progress=progress, executor=executor)
        evaluation = RunEvaluation(**vars(found), audit=audit)
        written = _write(evaluation, Path(out), known["model"]) if out is not None else []
        if report is not None and data is not None:
            told = {"config": data.config, "evaluators": chosen, "model": known["model"]}
            written.append(_write_report(report, opened, evaluation, known["cube"], **told))
        return replace(evaluation, written=tuple(written))


def _given(**asked: Any) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def _write_report(*given: Any, **options: Any) -> Path:
    from climlstm.report import write_report  # draws maps, which is an extra

    return write_report(*given, **options)


def _known(
    forecasts: xr.Dataset,
    trained_on: RunData | None,
    truth: xr.Dataset | None,
    place: tuple[str | None, str | None, Mapping[str, Any] | None],
    climatology: xr.Dataset | None,
    *,
    allow_seen: bool,
) -> tuple[Audit | None, dict[str, Any]]:
    """The audit of scoring forecasts, and arguments of `score`."""
    if trained_on is None:
        if truth is None:
            raise DataError(
                "The forecasts do not say which run made them (attribute climlstm_provenance). "
                "Pass the truth to score them against: evaluate(forecasts, cube)."
            )
        baselines = BASELINES if climatology is not None else ("persistence",)
        return None, {"cube": truth, "climatology": climatology, "baselines": baselines}
    config = trained_on.config
    audit = _audit(forecasts, config, climatology)
    _refuse_seen(audit, allow=allow_seen)
    if truth is None:
        data = other_data(config.data, *place)
        truth = trained_on.cube if data is config.data else open_cube(data)
    return (
        audit,
        {
            "cube": truth,
            "climatology": trained_on.climatology if climatology is None else climatology,
            "observed": trained_on.observed,
            "unusable": trained_on.statistics.unusable,
            "regions": config.evaluation.regions,
            "places": config.data.regions,
            "baselines": config.evaluation.baselines,
            "model": named(config.model.name, forecasts),
        },
    )


def _baselines(
    wanted: Iterable[PluginChoice | Baseline | str], data: RunData | None, forecasts: xr.Dataset
) -> dict[str, Baseline]:
    """Baselines by name; those of a run fitted to its training period."""
    named = [PluginChoice.parse(each) if isinstance(each, str) else each for each in wanted]
    made = {c.label: plugins.create("baselines", c.name, c.options) for c in chosen_plugins(named)}
    if data is None:
        return made

    def training() -> TrainingPeriod:
        leads = data.config.data.step.counts(forecasts["lead_time"].values)
        return data.training_period(int(leads.max()))

    return {label: ready(baseline, training) for label, baseline in made.items()}


def _chosen(
    evaluators: Iterable[PluginChoice | Evaluator | str],
    besides: Iterable[PluginChoice | Evaluator | str],
    data: RunData | None,
    forecasts: xr.Dataset,
    *,
    spectra: bool,
) -> tuple[PluginChoice, ...]:
    named, more = (
        chosen_plugins([PluginChoice.parse(n) if isinstance(n, str) else n for n in names])
        for names in (evaluators, besides)
    )
    settings = EvaluationConfig() if data is None else data.config.evaluation
    usual = named or chosen_plugins(evaluators_of(settings, forecasts))
    chosen = tuple({choice.label: choice for choice in (*usual, *more)}.values())
    if not spectra:
        return chosen
    from climlstm.report import with_spectra  # draws maps, which is an extra

    return tuple(with_spectra(chosen))


def evaluators_of(settings: EvaluationConfig, forecasts: xr.Dataset) -> list[PluginChoice]:
    """Evaluators of the run file, and those of ensembles where the forecasts are one."""
    chosen = list(settings.evaluators)
    if forecasts.sizes.get("realization", 1) > 1:
        named = {choice.name for choice in chosen}
        chosen += [PluginChoice(name=name) for name in OF_ENSEMBLES if name not in named]
    return chosen


def _check_places(forecasts: xr.Dataset, out: str | Path | None, report: str | Path | None) -> None:
    """Raises ConfigError, before anything is scored, for places where nothing can be written."""
    if out is not None and Path(out).suffix.lower() in FILES and not Path(out).is_dir():
        raise ConfigError(
            f"'{out}' looks like a file, but scores are written as several files into a folder. "
            "Name a folder, such as 'scores'; the table is scores.csv in it."
        )
    if report is not None and "climlstm_provenance" not in forecasts.attrs:
        raise ConfigError("A report tells how a run was trained, and these forecasts are of none.")


def _write(evaluation: RunEvaluation, out: Path, model: str) -> list[Path]:
    """Write tables, curves and audit into a folder."""
    written = [*write_scores(evaluation, out), *_draw_curves(evaluation, out, model)]
    if evaluation.audit is not None:
        written.append(out / "audit.json")
        with writing(written[-1]):
            write_text(written[-1], json.dumps(evaluation.audit.to_dict(), indent=1))
    return written


def _draw_curves(evaluation: Evaluation, out: Path, model: str) -> list[Path]:
    from climlstm import plots  # an extra

    scores, figures = evaluation.scores, {}
    for metric in ("rmse", "acc", "crps", "spread_skill"):
        if (scores["metric"] == metric).any():
            figures[metric] = plots.plot_scores(scores, metric=metric)
    figures |= plots.calibration_figures(scores, evaluation.tables, model)
    for name, draw in evaluation.figures.items():
        figures |= {f"{name}_{n}": figure for n, figure in enumerate(draw().values(), start=1)}
    for name, figure in figures.items():
        plots.save(figure, out / f"{name}.png")
    return [out / f"{name}.png" for name in figures]


def audit_scoring(forecasts: xr.Dataset, climatology: xr.Dataset | None = None) -> Audit:
    """Findings that make scores worthless, with the digest of the data trained on.

    climatology: to compare with; by default that of the training period.
    """
    return _audit(forecasts, config_of(forecasts), climatology)


def _audit(forecasts: xr.Dataset, config: Config, climatology: xr.Dataset | None) -> Audit:
    provenance = provenance_of(forecasts)
    taken_from = (
        config.data.periods.spans["train"] if climatology is None else period_of(climatology)
    )
    findings = check_scoring(
        provenance,
        forecasts["init_time"].values,
        forecasts["lead_time"].values,
        climatology=taken_from,
    )
    return Audit(tuple(findings), digest=provenance.get("audit", {}).get("digest"))


def _refuse_seen(found: Audit, *, allow: bool) -> None:
    if found.passed:
        return
    listed = "\n".join(f"- {finding}" for finding in found.errors)
    if not allow:
        raise DataError(
            f"These scores would say nothing of skill:\n{listed}\n"
            "Allow it with --allow-seen (allow_seen=True) if you want to see them nevertheless."
        )
    logger.warning("scored although it says nothing of skill:\n%s", listed)
