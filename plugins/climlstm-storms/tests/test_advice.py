"""Advice about fields and tracks is followed to its end, as it stands in messages."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from climlstm_storms.centres import Detector
from climlstm_storms.commands import app
from climlstm_storms.formats import read_tracks
from climlstm_storms.search import detect
from climlstm_storms.verification import Rules, cases_of, verify
from climlstm_storms.write import write_tracks
from typer.testing import CliRunner

from benchmarks.lows import Low, moving_lows, true_tracks
from climlstm.errors import DataError

TIMES = np.datetime64("2020-01-01", "ns") + np.arange(9) * np.timedelta64(6, "h")
LOW = Low(45, -20, 85, 45)


@pytest.fixture(scope="module")
def fields():
    return moving_lows([LOW], np.arange(90, -91, -5.0), np.arange(0, 360, 5.0), TIMES)


@pytest.fixture
def tracks():
    return true_tracks([LOW], TIMES)


def said(act) -> str:
    with pytest.raises(DataError) as error:
        act()
    return str(error.value)


def command(text: str):
    result = CliRunner().invoke(app, shlex.split(text), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_fields_of_other_names(fields, tmp_path):
    foreign = fields.rename(msl="PRMSL 1")
    expected = detect(fields, Detector())
    foreign["PRMSL 1"].attrs.pop("standard_name", None)
    message = said(lambda: detect(foreign, Detector()))
    names = re.search(r"names=(\{.*?\})", message)[1].replace("NAME", "'PRMSL 1'")
    assert detect(foreign, Detector(), names=eval(names)).equals(expected)
    option = re.search(r"storms track (--name msl=NAME)", message)[1]
    option = option.replace("NAME", "'PRMSL 1'")
    foreign.to_netcdf(tmp_path / "f.nc", engine="netcdf4")
    command(f"track {tmp_path}/f.nc --out {tmp_path}/t.csv {option}")
    assert len(read_tracks(tmp_path / "t.csv")) == 9


def test_fields_in_another_calendar(fields):
    noleap = fields.convert_calendar("noleap", use_cftime=True)
    message = said(lambda: detect(noleap, Detector()))
    advised = re.search(r"dataset\.convert_calendar\('standard'\)", message)[0]
    again = eval(advised, {"dataset": noleap})
    assert len(detect(again, Detector())) == len(detect(fields, Detector()))


def test_rows_out_of_order(fields):
    mixed = fields.isel(latitude=np.random.default_rng(0).permutation(fields.sizes["latitude"]))
    message = said(lambda: detect(mixed, Detector()))
    again = eval(re.search(r"dataset\.sortby\('latitude'\)", message)[0], {"dataset": mixed})
    assert len(detect(again, Detector())) == len(detect(fields, Detector()))


def test_no_tracks_and_no_period(tracks):
    none, given = tracks[:0], {"START": TIMES[0], "END": TIMES[-1], "cases_of": cases_of}
    message = said(lambda: verify(none, tracks, Rules()))
    advised = re.search(r"cases=(cases_of\(.*?\)\))\)", message)[1]
    cases = eval(advised, given | {"forecast": none, "truth": tracks})
    assert verify(none, tracks, Rules(), cases=cases).expected["hit"].tolist() == [False] * 9


def test_tracks_of_several_sources(tracks):
    both = pd.concat([tracks.assign(source="GOOD"), tracks.assign(source="POOR")])
    message = said(lambda: verify(both, tracks, Rules()))
    one = eval(re.search(r"tracks\[tracks\['source'\] == '.*?'\]", message)[0], {"tracks": both})
    assert len(verify(one, tracks, Rules()).errors) == 9


@pytest.mark.parametrize("ours", ["track_id", "time", "lat"])
def test_columns_of_other_names(tracks, tmp_path, ours):
    write_tracks(tracks, tmp_path / "t.csv")
    write_tracks(tracks, tmp_path / "best.csv")
    lines = (tmp_path / "t.csv").read_text().split("\n", 1)
    (tmp_path / "t.csv").write_text(lines[0].replace(ours, f"my {ours}") + "\n" + lines[1])
    message = said(lambda: read_tracks(tmp_path / "t.csv"))
    columns, option = re.search(
        r"columns=(\{.*?\}), or storms verify (--column \S+)\.$", message
    ).groups()
    table = read_tracks(tmp_path / "t.csv", columns=eval(columns.replace("NAME", f"my {ours}")))
    pd.testing.assert_series_equal(table[ours], tracks[ours])
    option = option.replace("NAME", f"'my {ours}'")
    command(f"verify {tmp_path}/t.csv --truth {tmp_path}/best.csv {option}")


def test_values_beyond_their_bounds(tmp_path):
    days = pd.date_range("2020-01-01", periods=6, freq="6h")
    rows = "\n".join(f"a,{day},-60,{15 + k},98{k},18{k}" for k, day in enumerate(days))
    (tmp_path / "t.csv").write_text(f"track_id,time,lon,lat,slp,wind\n{rows}\n")
    (tmp_path / "true.csv").write_text(f"track_id,time,lon,lat,slp,gusts\n{rows}\n")
    message = said(lambda: read_tracks(tmp_path / "t.csv", units={"wind": "m s-1"}))
    columns, units, option = re.search(
        r"columns=(\{.*?\}), units=(\{.*?\}), or storms verify (--column .*)\.$", message
    ).groups()
    columns, units = columns.replace("NAME", "wind"), units.replace("UNIT", "km h-1")
    table = read_tracks(tmp_path / "t.csv", columns=eval(columns), units=eval(units))
    np.testing.assert_allclose(table["wind"] * 3.6, [180, 181, 182, 183, 184, 185])
    option = option.replace("NAME", "wind").replace("UNIT", "'km h-1'")
    command(f"verify {tmp_path}/t.csv --truth {tmp_path}/true.csv {option} --preset any")
