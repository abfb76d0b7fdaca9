"""Pack Natural Earth, GeoJSON of 1:110 million and TopoJSON of 1:50 million, as we ship it.

python -m tests.pack_natural_earth FOLDER 110m.npz
python -m tests.pack_natural_earth countries-50m.json 50m.npz
python -m tests.pack_natural_earth countries-50m.json countries.npz   (needs pycountry)

The latter file is that of the npm package world-atlas 2.0.2 (Natural Earth 4.1.0).
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


def pack_topology(source: Path, target: Path) -> None:
    """Write the coasts and borders of a TopoJSON file of countries into the npz file `target`.

    An arc of one country is a coast, and one between two is a border. Edges of the sheet at the
    180th meridian and at the pole, which are no coasts, are left out.
    """
    topology = _read(source)
    scale, origin = (np.asarray(topology["transform"][key]) for key in ("scale", "translate"))
    arcs = [np.cumsum(np.asarray(arc), axis=0) * scale + origin for arc in topology["arcs"]]
    users: dict[int, set[int]] = {}
    for number, country in enumerate(topology["objects"]["countries"]["geometries"]):
        for arc in _arcs(country.get("arcs", [])):
            users.setdefault(arc if arc >= 0 else ~arc, set()).add(number)
    shared = {True: "borders", False: "coast"}
    lines: dict[str, list[NDArray[np.float64]]] = {"borders": [], "coast": []}
    for index, arc in enumerate(arcs):
        lines[shared[len(users.get(index, ())) > 1]] += list(_without_frame(arc))
    arrays: dict[str, NDArray[np.int16 | np.int32]] = {}
    for layer, parts in lines.items():
        arrays[layer] = np.round(np.concatenate(parts) * HUNDREDTHS).astype("int16")
        lengths = [len(part) for part in parts]
        arrays[f"{layer}_starts"] = np.cumsum([0, *lengths[:-1]]).astype("int32")
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]


def pack_countries(source: Path, target: Path) -> None:
    """Write the outlines of countries, with their names and codes, into the npz file `target`."""
    import pycountry  # names and codes of ISO 3166

    topology = _read(source)
    scale, origin = (np.asarray(topology["transform"][key]) for key in ("scale", "translate"))
    arcs = [np.cumsum(np.asarray(arc), axis=0) * scale + origin for arc in topology["arcs"]]
    rings: list[NDArray[np.int16]] = []
    countries: list[int] = []
    names: dict[str, int] = {}
    for number, country in enumerate(topology["objects"]["countries"]["geometries"]):
        names[country["properties"]["name"]] = number
        iso = pycountry.countries.get(numeric=country.get("id", "none"))
        for key in ("name", "common_name", "alpha_3") if iso else ():
            names.setdefault(getattr(iso, key, iso.name), number)
        for ring in _rings(country):
            parts = [arcs[arc] if arc >= 0 else arcs[~arc][::-1] for arc in ring]
            whole = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
            rings.append(np.round(whole * HUNDREDTHS).astype("int16"))
            countries.append(number)
    lengths = [len(ring) for ring in rings]
    points = np.concatenate(rings)
    np.savez_compressed(
        target,
        steps=np.diff(points, axis=0, prepend=np.zeros((1, 2), "int16")),
        starts=np.cumsum([0, *lengths[:-1]]).astype("int32"),
        countries=np.array(countries, "int16"),
        names=np.array(list(names)),
        numbers=np.array(list(names.values()), "int16"),
    )


def _rings(country: dict[str, Any]) -> Iterator[list[int]]:
    """The rings of a country, as numbers of arcs."""
    arcs = country.get("arcs", [])
    polygons = [arcs] if country["type"] == "Polygon" else arcs
    yield from (ring for polygon in polygons for ring in polygon)


def _arcs(nested: list[Any]) -> Iterator[int]:
    """The numbers of the arcs of a polygon, or of several."""
    for one in nested:
        if isinstance(one, list):
            yield from _arcs(one)
        else:
            yield one


def _without_frame(arc: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The parts of a line off the edges of the sheet, cut where it jumps across them."""
    on_frame = (np.abs(arc[:, 0]) > 179.99) | (arc[:, 1] < -89.9)
    along = on_frame[1:] & on_frame[:-1]
    cuts = np.flatnonzero(along | (np.abs(np.diff(arc[:, 0])) > 180)) + 1
    yield from (part for part in np.split(arc, cuts) if len(part) > 1)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    if sys.argv[2] == "countries.npz":
        pack_countries(source, Path("climlstm/grid") / sys.argv[2])
    else:
        write = pack if source.is_dir() else pack_topology
        write(source, Path("climlstm/plots/natural_earth") / sys.argv[2])
