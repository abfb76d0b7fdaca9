"""Maps, panels, tracks, score curves and animations. Cartopy and matplotlib stay in this room."""

from climlstm.errors import missing_extra

try:
    from climlstm.plots.coastlines import fetch, status
    from climlstm.plots.curves import plot_scores
    from climlstm.plots.maps import plot_field
    from climlstm.plots.panels import plot_forecast, plot_strip
    from climlstm.plots.projections import PROJECTIONS, REGIONS
    from climlstm.plots.sheet import save
except ImportError as error:
    if (error.name or "").split(".")[0] not in ("cartopy", "matplotlib", "shapely", "PIL"):
        raise
    raise missing_extra("Plotting", "plot", error) from error

__all__ = [
    "PROJECTIONS",
    "REGIONS",
    "fetch",
    "plot_field",
    "plot_forecast",
    "plot_scores",
    "plot_strip",
    "save",
    "status",
]
