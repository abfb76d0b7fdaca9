"""A forecast to leaf through: maps made once, whose colours change with the start and the lead."""

import io
from typing import Any

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize

from climlstm.errors import DataError
from climlstm.plots.canvas import Sampler, canvas_of
from climlstm.plots.coastlines import Coastlines
from climlstm.plots.fields import as_field, bounds_of
from climlstm.plots.maps import decorate, draw_image, extension
from climlstm.plots.projections import Region, view
from climlstm.plots.selection import channel, choose_init, choose_lead, true_field
from climlstm.plots.sheet import Sheet, add_colorbar, new_sheet, set_titles
from climlstm.plots.styles import ERROR_COLORMAP, lead_label, look_of, symmetric_limit, time_label
from climlstm.plugins import Style


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
        projection: str | ccrs.Projection | None = None,
        region: Region | None = None,
        style: Style | None = None,
        coastlines: Coastlines = "auto",
        width: float | None = None,
    ) -> None:
        """Arguments as in `plot_forecast`. Raises DataError for an unknown variable."""
        self.forecast, self.variable, self.truth = forecast, variable, truth
        series = channel(forecast, variable).sel(init_time=choose_init(forecast, None))
        count = series.sizes["lead_time"]
        first = as_field(series.isel(lead_time=0))
        self.look = look_of(first, style=style)
        shown = view(bounds_of(first), projection=projection, region=region)
        self.sheet = self._new_sheet(shown, width)
        self.maps = self.sheet.maps[0]
        self.sample = Sampler(first, canvas_of(self.maps[0]), "smooth")
        everything = self.look.values(series)
        norm = self.look.norm(everything)
        blank = np.full(self.sample.row.shape, np.nan)
        norms, colormaps = [norm, norm], [self.look.colormap, self.look.colormap]
        if truth is not None:
            limit = self._error_limit(as_field(series.isel(lead_time=count - 1)))
            norms.append(Normalize(-limit, limit))
            colormaps.append(ERROR_COLORMAP)
        self.images = []
        for ax, scale, colours in zip(self.maps, norms, colormaps, strict=False):
            self.images.append(draw_image(ax, blank, norm=scale, colormap=colours))
            decorate(ax, coastlines=coastlines)
        extend = extension(everything, norm)
        add_colorbar(self.images[0], self.sheet.bars[0], self.look.label_with_units, extend=extend)
        if truth is not None:
            label = f"Error ({self.look.units})" if self.look.units else "Error"
            add_colorbar(self.images[2], self.sheet.bars[1], label, extend="both")
        self._when = self.sheet.set_heading(self.look.label, "")

    def _new_sheet(self, shown: Any, width: float | None) -> Sheet:
        if self.truth is None:
            return new_sheet(shown, width=width, heading=True)
        return new_sheet(shown, columns=3, width=width or 13.0, heading=True, bars=((0, 1), (2, 2)))

    def _error_limit(self, last: xr.DataArray) -> float:
        """From the longest lead of the first forecast, whose errors are the largest."""
        true = self._true_at(last)
        return 1.0 if true is None else symmetric_limit(self.look.differences(last - true))

    def _true_at(self, field: xr.DataArray) -> xr.DataArray | None:
        """The truth at the valid time of a field; None where the truth does not reach."""
        assert self.truth is not None
        valid = field.init_time.values + field.lead_time.values
        if valid not in channel(self.truth, self.variable).time.values:
            return None
        return true_field(self.truth, self.variable, valid, like=field)

    def show(self, init_time: Any, lead_time: Any) -> bytes:
        """The picture of one start and lead, as PNG. Raises DataError for one that is not there."""
        start, lead = choose_init(self.forecast, init_time), choose_lead(self.forecast, lead_time)
        chosen = channel(self.forecast, self.variable).sel(init_time=start, lead_time=lead)
        field = as_field(chosen)
        self.images[0].set_data(self.sample(self.look.values(field)))
        set_titles(self.maps[0], "Forecast", "")
        if self.truth is not None:
            self._show_truth(field)
        valid = time_label(start + lead)
        self._when.set_text(f"{lead_label(lead)}, valid {valid}, from {time_label(start)}")
        buffer = io.BytesIO()
        self.sheet.figure.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def _show_truth(self, field: xr.DataArray) -> None:
        true = self._true_at(field)
        if true is None:
            blank = np.full(self.sample.row.shape, np.nan)
            self.images[1].set_data(blank)
            self.images[2].set_data(blank)
            set_titles(self.maps[1], "Truth", "none at this time")
            set_titles(self.maps[2], "Error", "")
            return
        self.images[1].set_data(self.sample(self.look.values(true)))
        self.images[2].set_data(self.sample(self.look.differences(field - true)))
        set_titles(self.maps[1], "Truth", "")
        set_titles(self.maps[2], "Error", "")


def require_series(forecast: xr.Dataset) -> None:
    """Raises DataError where there is nothing to leaf through."""
    missing = [dim for dim in ("init_time", "lead_time") if dim not in forecast.dims]
    if missing:
        raise DataError(
            f"This dataset has no dimension {' or '.join(missing)}, so it is no forecast. Draw its "
            "fields with climlstm.plots.plot_field, or open forecasts with climlstm.open_forecasts."
        )
