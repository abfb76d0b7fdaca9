"""Score forecasts that a run has made."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import xarray as xr

from climlstm import plugins
from climlstm.audit.audit import Audit
from climlstm.audit.leaks import check_scoring
from climlstm.config import Config, DataConfig, PluginChoice, chosen_evaluators
from climlstm.data.run_data import RunData, open_cube
from climlstm.data.statistics.climatology import period_of
from climlstm.errors import DataError
from climlstm.evaluation.evaluate import Evaluation, evaluate
from climlstm.plugins import Evaluator
from climlstm.runs.clusters import spread_over
from climlstm.runs.trained import config_of

logger = logging.getLogger(__name__)

OF_ENSEMBLES = ("crps", "spread_skill", "rank_histogram")
"""Evaluators of ensembles."""


def evaluate_run(
    forecasts: xr.Dataset,
    *,
    data: DataConfig | None = None,
    evaluators: Sequence[PluginChoice | Evaluator] | None = None,
    regions: Sequence[str] | None = None,
    model: str | None = None,
    baselines: Sequence[str] = ("persistence", "climatology"),
    allow_seen: bool = False,
    address: str | None = None,
    progress: Callable[[float], None] | None = None,
    normal: xr.Dataset | None = None,
    unusable: Iterable[np.datetime64] = (),
) -> Evaluation:
    """Score forecasts of a store beside persistence and the climatology of their training period.

    data: the truth, if not the data that the forecaster was trained on.
    evaluators, regions: by default as the run file has them, and for an ensemble its scores too;
        evaluators also as objects.
    model: what the forecasts are called; by default the name of their network.
    allow_seen: score also what the forecaster was trained or validated on.
    address: of a Ray cluster over which the initialisations are spread; None: this process.
    progress: is told the share of initialisations that have been scored.
    normal: a climatology, if not that of the training period; as `climatology` gives it.
    unusable: times at which the truth has missing values, besides those known from training.
    Raises DataError where scores would say nothing of skill (see `audit_scoring`), unless allowed.
    """
    config = config_of(forecasts)
    _refuse_seen(audit_scoring(forecasts, normal), allow=allow_seen)
    trained_on = RunData(config)
    with spread_over(address) as executor:
        return evaluate(
            forecasts,
            open_cube(data) if data else trained_on.cube,
            evaluators={
                choice.label: plugins.create("evaluators", choice.name, choice.options)
                for choice in chosen_evaluators(evaluators or evaluators_of(config, forecasts))
            },
            climatology=trained_on.climatology if normal is None else normal,
            regions=regions or config.evaluation.regions,
            observed=trained_on.observed,
            unusable=[*trained_on.statistics.unusable, *unusable],
            baselines=baselines,
            model=model or config.model.name,
            progress=progress,
            executor=executor,
        )


def evaluators_of(config: Config, forecasts: xr.Dataset) -> list[PluginChoice]:
    """Those of the run file, and what there is to say of an ensemble."""
    chosen = list(config.evaluation.evaluators)
    if forecasts.sizes.get("realization", 1) > 1:
        named = {choice.name for choice in chosen}
        chosen += [PluginChoice(name=name) for name in OF_ENSEMBLES if name not in named]
    return chosen


def audit_scoring(forecasts: xr.Dataset, normal: xr.Dataset | None = None) -> Audit:
    """What would make scores of forecasts worthless; its digest is that of the data trained on.

    normal: the climatology to compare with; by default that of the training period.
    """
    config = config_of(forecasts)
    provenance = json.loads(forecasts.attrs["climlstm_provenance"])
    taken_from = config.data.periods.spans["train"] if normal is None else period_of(normal)
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
