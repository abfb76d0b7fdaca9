"""Radar files, read as rain rates: engines of xarray, so that a catalog names them like any other.

    melbourne:
      driver: netcdf
      args: {urlpath: "{{ CATALOG_DIR }}/*.nc", engine: radar_cf}

Each gives `rain_rate` (time, y, x) in mm/h, with rows from north to south, x and y in metres on the
file's own projection, and `rain_status` (time, y, x), which tells dry, rain, missing and outside
apart; rates are 0 where it is dry, and NaN where they are missing or outside.

- `radar_cf`: NetCDF with CF conventions; rates, or sums over the interval that the file states.
- `odim`: OPERA's data model for HDF5, composites and Cartesian images (EUMETNET OPERA WP 2.1).
- `knmi`: HDF5 of the Dutch weather service, which has sums of five minutes.

Reflectivity is turned into rain by Z = a R^b, with `zr=(a, b)`; (200, 1.6) by default (Marshall and
Palmer 1948, J. Meteorol. 5, 165-166).
"""

from collections.abc import Callable, Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from climlstm.errors import DataError
from climlstm_nowcast import cf, knmi, odim
from climlstm_nowcast.frames import MARSHALL_PALMER


class _Radar(BackendEntrypoint):
    """The common part of the readers: one frame a file, read when it is opened."""

    open_dataset_parameters = ("filename_or_obj", "drop_variables", "zr")
    read: Callable[[str, tuple[float, float]], xr.Dataset]

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        zr: tuple[float, float] = MARSHALL_PALMER,
        **_: Any,
    ) -> xr.Dataset:
        """The frame of a file; `zr`: a and b of Z = a R^b."""
        a, b = zr
        if not (a > 0 and b > 0):
            raise DataError(f"Z = a R^b with a, b = {zr} is no rain: both must be above zero.")
        frame = self.read(str(filename_or_obj), (float(a), float(b)))
        return frame.drop_vars(drop_variables or (), errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Never by itself: the engine is named."""
        return False


class RadarCF(_Radar):
    """NetCDF under CF: a rate, a sum over an interval, or reflectivity."""

    description = "Radar rain in NetCDF with CF conventions, as rain rates"
    read = staticmethod(cf.read)


class ODIM(_Radar):
    """OPERA's data model for HDF5: composites and Cartesian images."""

    description = "Radar composites and images in ODIM HDF5, as rain rates"
    read = staticmethod(odim.read)


class KNMI(_Radar):
    """Images in the HDF5 of the Dutch weather service."""

    description = "Radar images in the HDF5 of KNMI, as rain rates"
    read = staticmethod(knmi.read)
