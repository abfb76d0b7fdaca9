"""Maps, panels, tracks, score curves and animations. Cartopy and matplotlib stay in this room."""

from climlstm.environment import import_pyproj
from climlstm.errors import missing_extra

try:
    import_pyproj()  # before cartopy imports it
    from climlstm.plots.animation import animate
    from climlstm.plots.curves import plot_scores
    from climlstm.plots.ensembles import (
        plot_ensemble,
        plot_probability,
        plot_spaghetti,
        plot_spread,
        plot_stamps,
    )
    from climlstm.plots.explorer import ForecastView, require_series
    from climlstm.plots.fields import placed_field
    from climlstm.plots.graphs import metric_name
    from climlstm.plots.maps import plot_field
    from climlstm.plots.options import Drawing
    from climlstm.plots.output import save, svg_of
    from climlstm.plots.panels import plot_forecast, plot_panels, plot_strip
    from climlstm.plots.projections import PROJECTIONS, REGIONS
    from climlstm.plots.ranks import calibration_figures, plot_ranks, plot_reliability
    from climlstm.plots.selection import channel, choose_init, choose_lead
    from climlstm.plots.spectra import plot_spectra
    from climlstm.plots.styles import look_of_channel
    from climlstm.plots.sweep import plot_sweep
    from climlstm.plots.tracks import plot_tracks
except ImportError as error:
    if (error.name or "").split(".")[0] not in (
        "cartopy",
        "matplotlib",
        "pyproj",
        "shapely",
        "PIL",
    ):
        raise
    raise missing_extra("Plotting", "plot", error) from error

__all__ = [
    "PROJECTIONS", "REGIONS", "Drawing", "ForecastView", "animate", "calibration_figures",
    "channel", "choose_init", "choose_lead", "look_of_channel", "metric_name", "placed_field",
    "plot_ensemble", "plot_field", "plot_forecast", "plot_panels", "plot_probability", "plot_ranks",
    "plot_reliability", "plot_scores", "plot_spaghetti", "plot_spectra", "plot_spread",
    "plot_stamps", "plot_strip", "plot_sweep", "plot_tracks", "require_series", "save",
    "svg_of",
]  # fmt: skip
