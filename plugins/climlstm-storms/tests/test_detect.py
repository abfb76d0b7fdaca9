"""Detection against a reference written for this test: plain loops over an explicit graph."""

import heapq
from collections import deque
from math import asin, cos, degrees, inf, isnan, radians, sin, sqrt

import numpy as np
import pytest
import xarray as xr
from climlstm_storms.centres import Detector
from climlstm_storms.mesh import Mesh
from climlstm_storms.search import detect
from scipy import ndimage

from benchmarks.lows import Low, moving_lows
from climlstm.errors import DataError
from climlstm.grid import LatLon


class Reference:
    """DetectNodes by the book, slowly: nodes, edges, queues. A pole row is one node."""

    def __init__(self, latitude, longitude, field, *, periodic, diagonal=False, closed_edges=False):
        self.lat, self.lon = latitude, longitude
        self.height, self.width = len(latitude), len(longitude)
        self.periodic, self.diagonal, self.closed_edges = periodic, diagonal, closed_edges
        self.value = {}
        for j in range(self.height):
            for i in range(self.width):
                node = self.node(j, i)
                row = [float(v) for v in field[j]]
                self.value[node] = float(np.mean(field[j])) if self.pole(j) else row[i]

    def pole(self, j):
        return self.periodic and abs(abs(self.lat[j]) - 90) < 1e-6

    def node(self, j, i):
        return (j, 0) if self.pole(j) else (j, i)

    def neighbours(self, node):
        """Neighbours, and whether the domain ends here."""
        j, i = node
        if self.pole(j):
            inner = 1 if j == 0 else self.height - 2
            return {(inner, k) for k in range(self.width)}, False
        steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
        if self.diagonal:
            steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
        found, edge = set(), False
        for dj, di in steps:
            jj, ii = j + dj, i + di
            if not 0 <= jj < self.height:
                spacing = abs(self.lat[0] - self.lat[1])
                if not self.periodic or 90 - abs(self.lat[j]) > 0.75 * spacing:
                    edge = True
                    continue
                jj, ii = j, i + self.width // 2 + di  # across the pole, half a turn away
            if self.periodic:
                ii %= self.width
            elif not 0 <= ii < self.width:
                edge = True
                continue
            found.add(self.node(jj, ii))
        return found - {node}, edge

    def distance(self, a, b):
        p, q = radians(self.lat[a[0]]), radians(self.lat[b[0]])
        d = radians(self.lon[a[1]] - self.lon[b[1]])
        h = sin((p - q) / 2) ** 2 + cos(p) * cos(q) * sin(d / 2) ** 2
        return degrees(2 * asin(min(1.0, sqrt(h))))

    def minima(self):
        return [
            node
            for node, value in self.value.items()
            if not isnan(value) and not any(self.value[n] < value for n in self.neighbours(node)[0])
        ]

    def merged(self, radius):
        minima = self.minima()

        def near(a, b):
            return self.distance(a, b) <= radius + 1e-6

        lowest = [
            a
            for a in minima
            if not any(self.value[b] < self.value[a] and near(a, b) for b in minima)
        ]
        lowest.sort(key=lambda n: (self.value[n], -self.lat[n[0]], self.lon[n[1]] % 360))
        kept = []
        for a in lowest:
            if not any(self.value[b] == self.value[a] and near(a, b) for b in kept):
                kept.append(a)
        return kept

    def is_closed(self, start, rise, radius):
        queue, visited = deque([start]), set()
        while queue:
            node = queue.popleft()
            if node in visited:
                continue
            visited.add(node)
            value = self.value[node]
            if self.distance(start, node) > radius + 1e-6:
                return False
            if isnan(value):
                if not self.closed_edges:
                    return False
                continue
            if value - self.value[start] >= rise and node != start:
                continue
            neighbours, edge = self.neighbours(node)
            if edge and not self.closed_edges:
                return False
            queue.extend(neighbours)
        return True

    def depth(self, start, radius):
        """Lowest pass, above the start, over which a path leaves the disc: Dijkstra's minimax."""
        heap, done = [(0.0, start)], set()
        while heap:
            height, node = heapq.heappop(heap)
            if node in done:
                continue
            done.add(node)
            neighbours, edge = self.neighbours(node)
            outside = any(self.distance(start, n) > radius + 1e-6 for n in neighbours)
            unknown = not self.closed_edges and (
                edge or any(isnan(self.value[n]) for n in neighbours)
            )
            if outside or unknown:
                return height
            for n in neighbours:
                if not isnan(self.value[n]):
                    heapq.heappush(heap, (max(height, self.value[n] - self.value[start]), n))
        return inf

    def nodes(self, *, merge, rise, radius):
        return {n for n in self.merged(merge) if self.is_closed(n, rise, radius)}


GLOBE = (np.arange(90, -91, -7.5), np.arange(0, 360, 7.5), True)
OFF_POLE = (np.arange(86.25, -90, -7.5), np.arange(-180, 180, 7.5), True)
REGION = (np.arange(70, 8, -3.0), np.arange(-30, 41, 3.0), False)
GRIDS = {"globe": GLOBE, "off the pole": OFF_POLE, "region": REGION}


def weather(latitude, longitude, seed, smooth=1.0, step=0.0):
    """Random pressure (Pa), smoothed; in steps of so many Pa, which makes plateaus."""
    noise = np.random.default_rng(seed).standard_normal((len(latitude), len(longitude)))
    field = ndimage.gaussian_filter(noise, smooth, mode=("nearest", "wrap"))
    field = 101300 + 900 * field / field.std()
    return np.round(field / step) * step if step else field


def dataset(latitude, longitude, field, **extra):
    fields = {"msl": (("latitude", "longitude"), field, {"units": "Pa"}), **extra}
    coords = {
        "latitude": latitude,
        "longitude": longitude,
        "time": np.datetime64("2020-01-01", "ns"),
    }
    return xr.Dataset(fields, coords=coords)


def found(table):
    table = table[table["lat"].notna()]
    return set(zip(table["j"], table["i"], strict=True))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("closed_edges", [False, True])
@pytest.mark.parametrize("kind", ["smooth", "noise", "plateaus", "missing"])
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 10), marks=pytest.mark.slow)])
def test_nodes_are_those_of_the_reference(grid, diagonal, closed_edges, kind, seeds):
    latitude, longitude, periodic = GRIDS[grid]
    some = 0
    for seed in seeds:
        smooth, step = {"noise": (0.3, 0), "plateaus": (0.8, 300)}.get(kind, (1.0, 0))
        field = weather(latitude, longitude, seed, smooth, step)
        if kind == "missing":
            field[weather(latitude, longitude, seed + 100, 1.5) > 102600] = np.nan
        for merge, rise, radius in ((8.0, 200.0, 15.0), (15.0, 500.0, 22.0), (7.6, 50.0, 7.6)):
            detector = Detector(
                contour_pa=rise,
                contour_deg=radius,
                merge_deg=merge,
                diagonal=diagonal,
                closed_edges=closed_edges,
                refine=False,
                adapt=False,
            )
            table = detect(dataset(latitude, longitude, field), detector)
            reference = Reference(
                latitude,
                longitude,
                field,
                periodic=periodic,
                diagonal=diagonal,
                closed_edges=closed_edges,
            )
            expected = reference.nodes(merge=merge, rise=rise, radius=radius)
            assert found(table) == expected
            some += len(expected)
            for row in table[table["lat"].notna()].itertuples():
                depth = reference.depth((row.j, row.i), radius)
                if np.isfinite(depth):
                    assert row.depth == pytest.approx(depth / 100, abs=1e-9)
    assert some > 5


def test_nodes_are_those_of_the_reference_on_one_degree():
    latitude, longitude = np.arange(90, -91, -1.0), np.arange(0, 360, 1.0)
    field = weather(latitude, longitude, 7, smooth=5).astype("float32")
    table = detect(dataset(latitude, longitude, field), Detector(refine=False))
    reference = Reference(latitude, longitude, field, periodic=True)
    expected = reference.nodes(merge=6.0, rise=200.0, radius=5.5)
    assert found(table) == expected
    assert len(expected) > 30


def test_warm_core_falls_all_round_its_maximum():
    latitude, longitude = np.arange(90, -91, -2.5), np.arange(0, 360, 2.5)
    times = np.array(["2020-01-01"], "M8[ns]")
    lows = [
        Low(15, 140, 0, 0, warm_core=400.0),
        Low(20, 200, 0, 0, warm_core=0.0),
        Low(-20, 60, 0, 0, warm_core=30.0),
    ]
    fields = moving_lows(lows, latitude, longitude, times)
    warm = detect(fields, Detector(warm_core="required"))
    cold = detect(fields, Detector(warm_core="excluded"))
    assert warm[["lat", "lon"]].round().to_numpy().tolist() == [[15, 140]]
    assert sorted(cold["lat"].round()) == [-20, 20]
    both = detect(fields, Detector())
    assert both.loc[both["lat"].round() == 15, "warm_core"].all()
    heights = fields.assign(z300=fields.z300 / 9.80665, z500=fields.z500 / 9.80665)
    for name in ("z300", "z500"):
        heights[name].attrs["units"] = "gpm"
    assert detect(heights, Detector(warm_core="required"))["lat"].round().tolist() == [15]


def test_warm_core_without_thickness_is_refused():
    fields = dataset(*REGION[:2], weather(*REGION[:2], 0))
    with pytest.raises(DataError, match=r"no geopotential at 300 and 500 hPa.*'z300'"):
        detect(fields, Detector(warm_core="required"))


def test_a_low_on_the_pole_is_one_node():
    latitude, longitude = np.arange(90, -91, -2.0), np.arange(0, 360, 2.0)
    times = np.array(["2020-01-01"], "M8[ns]")
    fields = moving_lows([Low(90, 0, 0, 0), Low(-90, 0, 0, 0)], latitude, longitude, times)
    table = detect(fields, Detector(refine=False))
    assert sorted(table["lat"]) == [-90, 90]
    assert table["depth"].min() > 10


def test_a_plateau_is_one_node_at_its_centroid():
    latitude, longitude = np.arange(60, 29, -1.0), np.arange(-20, 21, 1.0)
    phi, lam = np.meshgrid(latitude, longitude, indexing="ij")
    field = 100000 + 150 * np.maximum(np.abs(phi - 45), np.abs(lam))
    field[(np.abs(phi - 45) <= 1) & (np.abs(lam) <= 2)] = 100000  # 3 rows × 5 columns
    table = detect(dataset(latitude, longitude, field), Detector())
    assert len(table) == 1
    assert table["lat"][0] == pytest.approx(45, abs=0.02)
    assert table["lon"][0] == pytest.approx(0, abs=1e-9)
    parity = detect(dataset(latitude, longitude, field), Detector(refine=False))
    assert parity[["lat", "lon"]].to_numpy().tolist() == [
        [46, 0]
    ]  # northernmost, then from 0° E on


def test_a_flat_field_has_no_storm_and_takes_no_time():
    latitude, longitude = np.arange(90, -91, -1.0), np.arange(0, 360, 1.0)
    table = detect(dataset(latitude, longitude, np.full((181, 360), 101300.0)), Detector())
    assert len(table) == 1
    assert table["lat"].isna().all()


def test_a_wide_plateau_still_removes_a_higher_minimum_beside_it():
    latitude, longitude = np.arange(90, -91, -2.0), np.arange(0, 360, 2.0)
    field = np.full((91, 180), 101000.0)
    field[:, :60] = 100000.0
    field[45, 62], field[45, 120] = 100500.0, 100500.0
    detector = Detector(refine=False, adapt=False)
    table = detect(dataset(latitude, longitude, field), detector)
    assert table[["lat", "lon"]].to_numpy().tolist() == [[0, -120]]


def test_missing_data_close_a_contour_only_on_request():
    latitude, longitude = np.arange(60, 29, -1.0), np.arange(-20, 21, 1.0)
    times = np.array(["2020-01-01"], "M8[ns]")
    fields = moving_lows(
        [Low(45, 0, 0, 0, radius_km=600, depth_pa=900)], latitude, longitude, times
    )
    land = fields.where((fields.longitude < 2) | (fields.latitude > 50))
    assert detect(land, Detector())["lat"].isna().all()
    assert detect(land, Detector(closed_edges=True))["lat"].round().tolist() == [45]


def test_distances_grow_with_a_coarse_grid():
    latitude, longitude = np.arange(90, -91, -6.0), np.arange(0, 360, 6.0)
    times = np.array(["2020-01-01"], "M8[ns]")
    fields = moving_lows([Low(44, 33, 0, 0, radius_km=500)], latitude, longitude, times)
    table = detect(fields, Detector())
    assert len(table) == 1
    assert table["lat"][0] == pytest.approx(44, abs=2)
    assert table["wind"][0] > 5
    assert detect(fields, Detector(adapt=False))["lat"].isna().all()
    resolved = Detector().on_grid(6.0)
    assert (resolved.contour_deg, resolved.wind_deg, resolved.merge_deg) == (15.0, 6.0, 9.0)


@pytest.mark.parametrize("latitude", [0.0, 40.0, 70.0])
def test_a_low_is_found_wherever_it_lies_between_coarse_points(latitude):
    rows, columns = np.arange(87, -88, -6.0), np.arange(0, 360, 6.0)
    times = np.array(["2020-01-01"], "M8[ns]")
    for north in np.arange(0, 6, 1.0):
        for east in np.arange(0, 6, 1.0):
            low = Low(latitude + north, 120 + east, 0, 0, radius_km=400)
            fields = moving_lows([low], rows, columns, times)[["msl"]]
            assert detect(fields, Detector())["lat"].notna().sum() == 1


def test_mesh_knows_its_poles_and_edges():
    globe, off_pole, region = (Mesh(LatLon(*each[:2])) for each in (GLOBE, OFF_POLE, REGION))
    assert (globe.north, off_pole.south) == ("point", "across")
    assert (region.north, region.periodic) == ("ends", False)
    assert region.spacing_deg == pytest.approx(3.0)
