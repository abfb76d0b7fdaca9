"""Pack the GeoJSON files of Natural Earth 1:110 million into the compact file that we ship.

python -m tests.pack_natural_earth FOLDER [110m.npz]
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILES = {
    "coast": "ne_110m_coastline.json",
    "borders": "ne_110m_admin_0_boundary_lines_land.json",
    "lakes": "ne_110m_lakes.json",
    "land": "ne_110m_land.json",
}
HUNDREDTHS = 100
"""Stored units in a degree: 180° fit into int16, and 0.01° is 1.1 km."""


def pack(folder: Path, target: Path) -> None:
    """Write all layers found in `folder` into the npz file `target`."""
    arrays: dict[str, NDArray[np.int16 | np.int32]] = {}
    for layer, name in FILES.items():
        lines = [np.asarray(line)[:, :2] for line in _lines(_read(folder / name))]
        if layer == "lakes":
            lines += [np.asarray(ring)[:, :2] for ring in _holes(_read(folder / FILES["land"]))]
        lengths = [len(line) for line in lines]
        points = np.round(np.concatenate(lines) * HUNDREDTHS)
        arrays[layer] = points.astype("int16")
        arrays[f"{layer}_starts"] = np.cumsum([0, *lengths[:-1]]).astype("int32")
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]


def _lines(collection: dict[str, Any]) -> Iterator[list[list[float]]]:
    """Coordinates of each line, or outer ring, of a GeoJSON feature collection."""
    for feature in collection["features"]:
        kind, coordinates = feature["geometry"]["type"], feature["geometry"]["coordinates"]
        match kind:
            case "LineString":
                yield coordinates
            case "MultiLineString":
                yield from coordinates
            case "Polygon":
                yield coordinates[0]
            case "MultiPolygon":
                yield from (polygon[0] for polygon in coordinates)
            case _:
                raise ValueError(f"A feature is a {kind}, expected lines or polygons.")


def _holes(collection: dict[str, Any]) -> Iterator[list[list[float]]]:
    """The inner rings of all polygons: the Caspian Sea, which is none of the lakes."""
    for feature in collection["features"]:
        yield from feature["geometry"]["coordinates"][1:]


def _read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


if __name__ == "__main__":
    default = Path("climlstm/plots/natural_earth/110m.npz")
    pack(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
