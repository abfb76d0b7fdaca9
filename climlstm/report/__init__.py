"""A report: what was run, whether to trust it, how good it is, and how it looks, on one page."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr

from climlstm.config import Config, PluginChoice
from climlstm.evaluation.evaluate import Evaluation
from climlstm.files import write_text, writing
from climlstm.forecasting import ensemble_mean
from climlstm.report import page, sections
from climlstm.report.verdict import best_known, headline
from climlstm.version import __version__

SPECTRA = PluginChoice(name="power_spectrum")
"""The evaluator whose table becomes the report's spectra."""


def with_spectra(evaluators: Sequence[PluginChoice]) -> list[PluginChoice]:
    """These evaluators, and the one that a report needs besides."""
    return [*evaluators, *([] if any(c.name == SPECTRA.name for c in evaluators) else [SPECTRA])]


def write_report(
    path: str | Path,
    forecasts: xr.Dataset,
    evaluation: Evaluation,
    truth: xr.Dataset,
    *,
    config: Config,
    evaluators: Sequence[PluginChoice],
    model: str | None = None,
) -> Path:
    """Write one HTML page that needs nothing but itself; the path.

    forecasts: of a store that climlstm wrote, with its provenance.
    evaluation: of these forecasts by these evaluators, as from `climlstm.evaluate`.
    truth: the cube that they were scored against.
    model: what the forecasts are called in the evaluation; by default the name of the network.
    Raises DataError where the page cannot be written.
    """
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    provenance = json.loads(forecasts.attrs["climlstm_provenance"])
    name = model or config.model.name
    typical, worst = best_known(evaluation, forecasts, name)
    parts = [
        ("What was run", sections.what_was_run(forecasts, config, provenance)),
        ("Audit", sections.audit(provenance)),
        ("Scores", sections.scores(evaluation, name)),
        ("Maps", sections.maps(ensemble_mean(forecasts), truth, typical, worst)),
        ("Ensemble", sections.ensemble(forecasts, truth, typical)),
        ("Calibration", sections.calibration(evaluation, name)),
        ("Storms", sections.storms(evaluation, truth, evaluators, name, typical)),
        ("Spectra", sections.spectra(evaluation, name)),
        *((label, sections.drawn(draw)) for label, draw in evaluation.figures.items()),
        ("Run file", sections.run_file(config)),
    ]
    written = page.page(
        f"{config.name}: forecasts by {name}",
        lead=headline(evaluation, forecasts, config, provenance, name),
        sections=parts,
        foot=(
            f"Written on {datetime.now(UTC):%-d %B %Y} with climlstm {__version__}. "
            "Coastlines: Natural Earth, public domain."
        ),
    )
    with writing(target):
        write_text(target, _without_homes(written))
    return target


def _without_homes(text: str) -> str:
    """The page with ~ for the home of whoever made it, which is nobody else's business."""
    named = r"(?:/home|/Users)/[^/\s'\"<&]+|[A-Z]:\\Users\\[^\\\s'\"<&]+"
    return re.sub(f"{re.escape(str(Path.home()))}(?=[/\\\\])|{named}", "~", text)
