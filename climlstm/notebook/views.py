"""In Jupyter: `dataset.climlstm`, from which forecasts are drawn, leafed through and scored.

`import climlstm` registers it with xarray.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.calendars import calendar_of, time_text
from climlstm.data.knowledge import label_of
from climlstm.errors import DataError, PluginError
from climlstm.steps import lead_text, parse_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from climlstm.evaluation.evaluate import Evaluation

logger = logging.getLogger(__name__)

MEMBERS = "realization"

STRIP_LEADS = 4
"""Lead times of the static strip that stands where widgets are missing."""


class Accessor:
    """Maps, animations, tracks, scores and reports of a dataset of forecasts or weather.

    Options are those of the functions of the same name in `climlstm.plots`.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def plot_field(self, variable: str, *, time: Any = None, **options: Any) -> Any:
        """A map of one variable of a cube.

        time: such as '2015-06-15', of which the nearest one is drawn, with a note; a number counts
        from the first (0) or from the last (-1), which is the one if not given.
        """
        from climlstm import plots

        plots.channel(self._dataset, variable)
        field = plots.placed_field(self._dataset, variable)
        return plots.plot_field(at_time(field, time), **options)

    def plot_forecast(self, variable: str | None = None, **options: Any) -> "Figure":
        """Forecast, truth and error of one variable; the forecast alone without `truth`.

        variable: the first one, if not given.
        """
        from climlstm import plots

        chosen = str(next(iter(self._dataset.data_vars))) if variable is None else variable
        return plots.plot_forecast(self._dataset, chosen, **options)

    def plot_ensemble(self, variable: str, kind: Any = "spread", **options: Any) -> Any:
        """Mean and spread of an ensemble, its `members`, `spaghetti`, or a `probability`."""
        from climlstm import plots

        return plots.plot_ensemble(self._dataset, variable, kind, **options)

    def plot_strip(self, variable: str, *, lead_times: Sequence[Any], **options: Any) -> "Figure":
        """One forecast over several lead times."""
        from climlstm import plots

        return plots.plot_strip(self._dataset, variable, lead_times=lead_times, **options)

    def animate(self, variable: str, path: Any, **options: Any) -> Any:
        """The forecast as it unfolds, written as .gif or .mp4; the path."""
        from climlstm import plots

        return plots.animate(self._dataset, variable, path, **options)

    def truth(self) -> xr.Dataset:
        """The cube that the forecaster was trained on, opened anew as its run file says.

        Raises DataError where the forecasts were not made by climlstm.
        """
        from climlstm.data.forecasts import open_truth

        return open_truth(self._dataset)

    def verify(self, **options: Any) -> "Evaluation":
        """Scores beside persistence and climatology; options of `climlstm.evaluate`.

        It shows itself as tables; `.scores` is the table to go on with.
        Raises DataError where the forecasts were not made by climlstm.
        """
        from climlstm.runs import evaluate

        return evaluate(self._dataset, **options)

    def report(
        self, path: str | Path, *, evaluators: Sequence[str] = (), model: str | None = None
    ) -> Path:
        """Score the forecasts and write one HTML page to pass on; its path.

        evaluators: by name, besides those of the run file.
        model: what the forecasts are called; by default the name of their network.
        Raises DataError where the forecasts were not made by climlstm.
        """
        self.verify(report=path, besides=evaluators, model=model)
        return Path(path)

    def tracks(
        self,
        truth: xr.Dataset | None = None,
        *,
        evaluator: str = "storms",
        options: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Table of the storm tracks in the forecasts, and in the truth (column `source`).

        truth: a cube; that of `truth()` if not given.
        evaluator, options: a plugin that tracks storms, and its options as in a run file.
        Raises PluginError where it is not installed, or does not track.
        """
        from climlstm import plugins
        from climlstm.evaluation.evaluate import evaluate

        tracker = plugins.create("evaluators", evaluator, options or {})
        if not hasattr(tracker, "tracks"):
            raise PluginError(
                f"The evaluator '{evaluator}' finds no tracks. Name one that does, such as "
                "'storms' of climlstm-storms."
            )
        found = evaluate(
            self._dataset,
            self.truth() if truth is None else truth,
            evaluators={evaluator: tracker},
            climatology=None,
            baselines={},
        )
        tracks: pd.DataFrame = tracker.tracks(found.cases[evaluator].drop(columns="model"))
        return tracks

    def plot_tracks(
        self, truth: xr.Dataset | None = None, *, field: str | None = None, **options: Any
    ) -> Any:
        """A map of the storm tracks of one initialisation, forecast and true.

        field: a channel that is drawn below, as forecast at the first lead time.
        """
        from climlstm import plots

        table = self.tracks(truth)
        predicted = table[table["source"] == "forecast"]
        below = None
        if field is not None:
            start = plots.choose_init(self._dataset, options.get("init_time"))
            below = plots.channel(self._dataset, field).sel(init_time=start).isel(lead_time=0)
        true = table[table["source"] == "truth"]
        options.setdefault("title", f"Storm tracks {label_of(self._dataset)}".strip())
        return plots.plot_tracks(predicted, truth=true, field=below, **options)

    def explore(
        self, variable: str | None = None, *, truth: xr.Dataset | None = None, **options: Any
    ) -> Any:
        """Sliders over initialisation and lead time, and a choice of variables, above the maps.

        Where ipywidgets is not installed, a strip over some lead times.
        options: projection, region, style, width, coastlines as in `plot_forecast`.
        """
        from climlstm import plots

        plots.require_series(self._dataset)
        names = [str(name) for name in self._dataset.data_vars]
        chosen = names[0] if variable is None else variable
        plots.channel(self._dataset, chosen)
        try:
            import ipywidgets
        except ImportError:
            logger.warning(
                "ipywidgets is not installed, so here is a strip of maps instead of sliders. "
                "Install it with: pip install 'climlstm[notebook]'"
            )
            leads = self._dataset["lead_time"].values
            some = leads[np.unique(np.linspace(0, leads.size - 1, STRIP_LEADS).astype(int))]
            return self.plot_strip(chosen, lead_times=list(some), truth=truth, **options)
        return _Explorer(ipywidgets, self._dataset, names, chosen, truth, options).box

    def __repr__(self) -> str:
        return (
            "climlstm: plot_field, plot_forecast, plot_ensemble, plot_strip, animate, tracks, "
            "plot_tracks, "
            "verify, report, truth, explore"
        )


class FieldAccessor:
    """A map of one DataArray: `dataset["t2m"].climlstm.plot_field()`."""

    def __init__(self, field: xr.DataArray) -> None:
        self._field = field

    def plot_field(self, *, time: Any = None, **options: Any) -> Any:
        """A map of the field; `time` as for a dataset, options those of `climlstm.plots`."""
        from climlstm import plots

        return plots.plot_field(at_time(self._field, time), **options)

    def __repr__(self) -> str:
        return "climlstm: plot_field"


def at_time(field: xr.DataArray, time: Any) -> xr.DataArray:
    """The field at a time, by its number or the nearest one, of which a note tells."""
    if "time" not in field.dims:
        return field
    if time is None or isinstance(time, int | np.integer):
        return field.isel(time=-1 if time is None else time)
    times = field["time"].values
    wanted = parse_time(time, calendar_of(times))
    distance = np.abs([(one - wanted) / np.timedelta64(1, "s") if times.dtype.kind == "M"
                       else (one - wanted).total_seconds() for one in times])  # fmt: skip
    nearest = int(np.argmin(distance))
    beyond = not times.min() <= wanted <= times.max()
    spacing = np.abs(np.diff(distance)).max(initial=0.0)
    if beyond and distance[nearest] > spacing:
        raise DataError(
            f"There is no '{field.name}' at {time_text(wanted)}: it runs from "
            f"{time_text(times[0])} to {time_text(times[-1])}."
        )
    if distance[nearest] > 0:
        logger.warning(
            "There is no '%s' at %s; this is the nearest, %s.",
            field.name, time_text(wanted), time_text(times[nearest]),
        )  # fmt: skip
    return field.isel(time=nearest)


class _Explorer:
    """Widgets around a `ForecastView`, which is made once for each variable and then reused."""

    def __init__(
        self,
        widgets: Any,
        dataset: xr.Dataset,
        names: Sequence[str],
        variable: str,
        truth: xr.Dataset | None,
        options: Mapping[str, Any],
    ) -> None:
        self.dataset, self.truth, self.options = dataset, truth, dict(options)
        self.views: dict[tuple[str, str], Any] = {}
        inits, leads = np.atleast_1d(dataset["init_time"]), np.atleast_1d(dataset["lead_time"])
        months = leads.dtype.kind in "iu"
        starts = [(time_text(time, months=months), time) for time in inits]
        hours = [(f"+{lead_text(lead)}", lead) for lead in leads]
        narrow, wide = widgets.Layout(width="8em"), widgets.Layout(width="40%")
        self.variable = widgets.Dropdown(options=names, value=variable, layout=narrow)
        self.start = widgets.SelectionSlider(options=starts, description="from", layout=wide)
        self.lead = widgets.SelectionSlider(options=hours, description="lead", layout=wide)
        play = widgets.Play(min=0, max=leads.size - 1, interval=300, layout=widgets.Layout())
        widgets.jslink((play, "value"), (self.lead, "index"))
        shown = []
        if MEMBERS in dataset.dims:
            shown = ["mean", *(f"member {name}" for name in dataset[MEMBERS].values)]
        self.member = widgets.Dropdown(options=shown or ["mean"], layout=narrow)
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.message = widgets.HTML()
        for control in (self.variable, self.start, self.lead, self.member):
            control.observe(self.update, names="value")
        chosen = [self.variable, self.start, self.lead]
        self.controls = widgets.HBox([*chosen, play, *([self.member] if shown else [])])
        self.box = widgets.VBox([self.controls, self.message, self.picture])
        self.update()

    def _view(self) -> Any:
        """The maps of the chosen variable and member, made once."""
        from climlstm import plots

        key = self.variable.value, self.member.value
        if key not in self.views:
            data = self.dataset
            if key[1] != "mean":
                data = data.isel({MEMBERS: self.member.index - 1}, drop=True)
            self.views[key] = plots.ForecastView(data, key[0], truth=self.truth, **self.options)
        return self.views[key]

    def update(self, _change: Any = None) -> None:
        """Draw what the controls say; an error is shown where the picture would be."""
        from html import escape

        try:
            self.picture.value = self._view().show(self.start.value, self.lead.value)
            self.message.value = ""
        except DataError as error:
            self.message.value = f"<b>{escape(str(error))}</b>"
