"""A forecast to leaf through: maps made once, whose colours change with the start and the lead."""

from typing import Any, Unpack

import numpy as np
import xarray as xr

from climlstm.errors import DataError
from climlstm.plots.fields import as_field
from climlstm.plots.maps import decorate, draw_values, open_maps
from climlstm.plots.options import Drawing, MapOptions
from climlstm.plots.output import png_of
from climlstm.plots.panels import Scale
from climlstm.plots.selection import (
    MEMBERS,
    channel,
    choose_init,
    choose_lead,
    true_field,
)
from climlstm.plots.sheet import SHEET_INCHES, set_titles
from climlstm.plots.styles import times_label
from climlstm.steps import valid_time


class ForecastView:
    """Forecast, and with a truth also truth and error, of one variable at any start and lead.

    The colour scales are those of the first forecast over all its leads, so that pictures compare.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        variable: str,
        *,
        truth: xr.Dataset | None = None,
        **options: Unpack[MapOptions],
    ) -> None:
        """Arguments as in `plot_forecast`. Raises DataError for an unknown variable."""
        if forecast.sizes.get(MEMBERS, 1) > 1:
            forecast = forecast.mean(MEMBERS, keep_attrs=True)
        self.forecast, self.variable, self.truth = forecast, variable, truth
        self.drawing = Drawing.of(options)
        series = channel(forecast, variable).sel(init_time=choose_init(forecast, None))
        steps = [as_field(series.isel(lead_time=n)) for n in range(series.sizes["lead_time"])]
        true = None if truth is None else self._true_at(steps[-1])  # its errors are the largest
        errors = [] if true is None else [steps[-1] - true]
        self.scale = scale = Scale.of(steps, errors, self.drawing)
        self.look = scale.look
        beside: dict[str, Any] = {} if truth is None else {
            "columns": 3, "width": self.drawing.inches or SHEET_INCHES, "bars": ((0, 1), (2, 2)),
        }  # fmt: skip
        self.sheet = open_maps(steps[0], None, self.drawing, heading=True, **beside)
        self.maps = self.sheet.flat
        self._blank = np.full(steps[0].shape, np.nan)
        shading = self.drawing.shading_of(self.look)
        self.images = []
        for ax, each in zip(self.maps, (scale.colours, scale.colours, scale.errors), strict=False):
            self.images.append(draw_values(ax, steps[0], self._blank, each, shading=shading))
            decorate(ax, self.drawing)
        scale.add_bars(self.sheet, self.images)
        self._when = self.sheet.set_heading(self.look.label, "")

    def _true_at(self, field: xr.DataArray) -> xr.DataArray | None:
        """The truth at the valid time of a field; None where the truth does not reach."""
        assert self.truth is not None
        valid = valid_time(field.init_time.values, field.lead_time.values)
        if valid not in channel(self.truth, self.variable).time.values:
            return None
        return true_field(self.truth, self.variable, valid, like=field)

    def show(self, init_time: Any, lead_time: Any) -> bytes:
        """The picture of one start and lead, as PNG. Raises DataError for one that is not there."""
        start, lead = choose_init(self.forecast, init_time), choose_lead(self.forecast, lead_time)
        chosen = channel(self.forecast, self.variable).sel(init_time=start, lead_time=lead)
        field = as_field(chosen)
        self.images[0].show(self.look.values(field))
        set_titles(self.maps[0], "Forecast", "")
        if self.truth is not None:
            self._show_truth(field)
        self._when.set_text(times_label(field).replace("\n", ", "))
        return png_of(self.sheet.figure)

    def _show_truth(self, field: xr.DataArray) -> None:
        true = self._true_at(field)
        if true is None:
            self.images[1].show(self._blank)
            self.images[2].show(self._blank)
            set_titles(self.maps[1], "Truth", "none at this time")
            set_titles(self.maps[2], "Error", "")
            return
        self.images[1].show(self.look.values(true))
        self.images[2].show(self.look.differences(field - true))
        set_titles(self.maps[1], "Truth", "")
        set_titles(self.maps[2], "Error", self.scale.rmse(field - true, self.drawing))


def require_series(forecast: xr.Dataset) -> None:
    """Raises DataError where there is nothing to leaf through."""
    missing = [dim for dim in ("init_time", "lead_time") if dim not in forecast.dims]
    if missing:
        raise DataError(
            f"This dataset has no dimension {' or '.join(missing)}, so it is no forecast. Draw its "
            "fields with climlstm.plots.plot_field, or open forecasts with climlstm.open_forecasts."
        )
