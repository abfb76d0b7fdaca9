"""Latitudes and longitudes of the whole globe."""

import numpy as np


def global_grid(spacing=2.0, *, poles=True, ascending=False, west=0.0):
    rows = round(180 / spacing)
    latitude = (
        np.linspace(90, -90, rows + 1) if poles else 90 - spacing / 2 - spacing * np.arange(rows)
    )
    longitude = west + spacing * np.arange(round(360 / spacing))
    return (latitude[::-1] if ascending else latitude), longitude
