"""The report: one file, that says what was run and found, and asks nothing of the network."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cartopy")

from climlstm import plots, runs
from climlstm.config import PluginChoice
from climlstm.errors import DataError
from climlstm.forecasting import open_forecasts
from climlstm.html import Markup, details, facts, table
from climlstm.report import sections, verdict, with_spectra, write_report
from climlstm.report.verdict import best_known
from climlstm.runs import open_cube

EVALUATORS = with_spectra([PluginChoice(name="rmse"), PluginChoice(name="acc")])


@pytest.fixture(scope="module")
def forecasts(trained, tmp_path_factory):
    store = tmp_path_factory.mktemp("report") / "forecasts.zarr"
    inits = pd.date_range("2001-03-12", periods=5, freq="2D").to_numpy()
    runs.forecast(trained, store, init_times=inits, steps=8)
    return open_forecasts(store)[["msl", "t850"]]


@pytest.fixture(scope="module")
def evaluation(forecasts):
    return runs.evaluate(forecasts, evaluators=EVALUATORS)


@pytest.fixture(scope="module")
def written(forecasts, evaluation, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    truth = open_cube(trained.config.data)
    write_report(
        path, forecasts, evaluation, truth, config=trained.config, evaluators=EVALUATORS
    )  # fmt: skip
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """What stands in a page: tags that are open, text by heading, attributes."""

    VOID = ("meta", "br", "path", "use", "image", "rect", "link", "hr")

    def __init__(self, page):
        super().__init__()
        self.open, self.wrong, self.section = [], [], ""
        self.text, self.attributes = {"": ""}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self.section = dict(attrs)["id"]
            self.text[self.section] = ""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text[self.section] += f"{data} "


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(written):
    page = Page(written)
    assert not page.wrong
    assert not page.open
    assert "script" not in {tag for tag, _, _ in page.attributes}
    assert "<script" not in written.lower()
    outside = [
        (tag, name, value[:60])
        for tag, name, value in page.attributes
        if name in ("src", "href", "xlink:href", "action") and not value.startswith(("#", "data:"))
    ]
    assert outside == []
    assert not [place for place in re.findall(r"url\(([^)]*)\)", written) if place[0] != "#"]
    assert "@import" not in written


def test_it_says_what_was_run_and_found(written, forecasts, evaluation, trained):
    text = Page(written).text
    assert list(text) == ["", "what-was-run", "audit", "scores", "maps", "spectra", "run-file"]
    provenance = json.loads(forecasts.attrs["climlstm_provenance"])
    assert provenance["digest"][:16] in text["what-was-run"]
    assert "/".join(trained.checkpoint.parts[-3:]) in text["what-was-run"]
    assert str(trained.checkpoint.parent) not in written.replace(text["run-file"], "")
    assert "2001-01-01 to 2001-02-15" in text["what-was-run"]
    verdict = "passed" if provenance["audit"]["passed"] else "failed"
    assert verdict in text["audit"]
    for finding in provenance["audit"]["findings"]:
        assert finding["fix"].split(".")[0] in " ".join(text["audit"].split())
    assert "patience" in text["run-file"]  # with defaults


def test_scores_stand_beside_the_baselines_in_readable_units(written, evaluation):
    scores = evaluation.scores
    chosen = scores[(scores["metric"] == "rmse") & (scores["variable"] == "msl")]
    day = chosen[chosen["lead_time"] == pd.Timedelta("1D")].set_index("model")["value"] / 100
    text = " ".join(Page(written).text["scores"].split())
    models = ("convlstm", "persistence", "climatology")
    numbers = r"( \[[^]]*\])? ".join(f"{day[model]:.3g}" for model in models)
    assert re.search(rf"msl \(hPa\) 24h {numbers}", text)
    assert "persistence climatology" in text


def test_headlines_are_those_that_the_intervals_leave(evaluation):
    """A skill whose interval reaches zero is none; the first variable to lose it is named."""
    table = evaluation.scores
    skill = table[(table["metric"] == "rmse_skill_vs_persistence") & (table["model"] == "convlstm")]
    near = skill["variable"] == "msl"
    skill = skill.assign(
        value=np.where(near, 0.004, 0.5), ci_low=np.where(near, -0.016, 0.4), ci_high=0.6
    )
    found = verdict._skill(replace(evaluation, scores=skill), "convlstm")
    [(number, said)] = found
    assert number == "0 days"
    assert "msl" in said
    sure = skill.assign(ci_low=0.001)
    [(number, said)] = verdict._skill(replace(evaluation, scores=sure), "convlstm")
    assert number == "> 2 days"
    late = (skill["lead_time"] > pd.Timedelta("1D")) & ~near
    [(number, said)] = verdict._skill(
        replace(evaluation, scores=skill.assign(ci_low=np.where(late, -1.0, 0.001))), "convlstm"
    )
    assert 1.0 <= float(number.split()[0]) < 1.3
    assert "until t850 is the first" in said


def test_the_page_says_when_and_with_what_but_not_whose_home_it_was(
    written, forecasts, evaluation, trained, tmp_path, monkeypatch
):
    today = datetime.now(UTC)
    assert f"Written on {today.day} {today:%B %Y} with climlstm" in written
    assert "torch" in Page(written).text["what-was-run"]
    config = trained.config.model_copy(update={"name": "by /home/maria/runs and /Users/jo/x"})
    path = tmp_path / "r.html"
    truth = open_cube(trained.config.data)
    write_report(path, forecasts, evaluation, truth, config=config, evaluators=EVALUATORS)
    page = path.read_text(encoding="utf-8")
    assert "by ~/runs and ~/x" in page
    assert "maria" not in page


def test_variables_have_one_order_and_one_unit_all_over_the_page(written):
    scores = Page(written).text["scores"]
    assert scores.index("msl (hPa)") < scores.index("t850 (K)")
    assert "°C" not in scores
    labels = [v for _, name, v in Page(written).attributes if name == "aria-label" and "RMSE" in v]
    assert [label.split(" against")[0] for label in labels] == [
        "RMSE of Mean sea level pressure", "RMSE of 850 hPa temperature",
    ]  # fmt: skip


def test_evaluators_that_are_named_come_to_those_of_the_run_file(forecasts, trained):
    few = forecasts.isel(init_time=[0, 1])
    usual = {choice.label for choice in trained.config.evaluation.evaluators}
    found = runs.evaluate(few, besides=["bias"], baselines=())
    assert usual | {"bias"} <= set(found.cases) | set(found.tables)
    only = runs.evaluate(few, evaluators=["bias"], baselines=())
    assert set(only.scores["metric"]) == {"bias"}


def test_maps_are_of_the_median_and_the_worst_case(written, evaluation):
    cases = evaluation.cases["rmse"]
    cases = cases[(cases["model"] == "convlstm") & (cases["variable"] == "msl")]
    cases = cases[cases["lead_time"] == pd.Timedelta("48h")].sort_values("mse")
    median, worst = (pd.Timestamp(cases["init_time"].iloc[n]) for n in (2, 4))
    text = Page(written).text["maps"]
    assert f"Mean sea level pressure from {median.day} Mar 2001 00 UTC, 48 h ahead: the med" in text
    assert f"Mean sea level pressure from {worst.day} Mar 2001 00 UTC, 48 h ahead: the wor" in text
    labels = [value for _, name, value in Page(written).attributes if name == "aria-label"]
    assert len([label for label in labels if label.startswith("Map of the error")]) == 3


def test_pictures_take_the_colours_of_the_page(evaluation):
    drawn = plots.svg_of(plots.plot_scores(evaluation.scores, variables=["msl"]))
    assert drawn.startswith("<svg")
    assert "var(--ink)" in drawn
    assert "#222222" not in drawn
    again = plots.svg_of(plots.plot_scores(evaluation.scores, variables=["msl"]))
    assert again == drawn


def test_panels_share_one_scale(forecasts, trained):
    truth = open_cube(trained.config.data)
    figures = plots.plot_panels(forecasts, "msl", truth=truth, lead_time="12h")
    images = [figure.axes[0].images[0] for figure in figures]
    assert images[0].norm.vmin == images[1].norm.vmin
    assert images[2].norm.vmin == -images[2].norm.vmax
    assert "RMSE" in figures[2].axes[0].get_title(loc="right")


def test_storm_tracks_where_an_evaluator_tracks(forecasts, trained):
    pytest.importorskip("climlstm_storms")
    storms = [PluginChoice(name="storms")]
    few = forecasts.isel(init_time=[0, 1])
    found = runs.evaluate(few, evaluators=storms, baselines=())
    truth = open_cube(trained.config.data)
    typical, worst = best_known(found, few, "convlstm")
    assert (worst, typical.init_time) == (None, few["init_time"].values[1])
    drawn = sections.storms(found, truth, storms, "convlstm", typical)
    assert "Position error (km)" in drawn
    assert "Tracks forecast from 14 Mar 2001 00 UTC, up to 48 h ahead" in drawn
    assert "POD: probability of detection" in drawn
    assert sections.storms(found, truth, EVALUATORS, "convlstm", typical) == ""


def test_a_report_that_cannot_be_written_says_so(forecasts, evaluation, trained, tmp_path):
    (tmp_path / "file").write_text("")
    truth = open_cube(trained.config.data)
    with pytest.raises(DataError, match="cannot be written"):
        write_report(
            tmp_path / "file" / "report.html", forecasts, evaluation, truth,
            config=trained.config, evaluators=EVALUATORS,
        )  # fmt: skip


def test_what_comes_from_outside_is_escaped():
    evil = "<script>alert(1)</script>"
    shown = table((evil,), [(evil, 1)], caption=evil) + facts([(evil, evil)]) + details(evil)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 6
    assert table(("",), [(Markup("<b>1</b>"),)]).count("<b>1</b>") == 1


def test_notebooks_show_config_forecaster_audit_and_scores(trained, evaluation):
    from climlstm.model.saving import read_forecaster
    from climlstm.runs import check_run

    forecaster, _ = read_forecaster(trained.checkpoint)
    audit = check_run(trained.config)
    number = sum(weights.numel() for weights in forecaster.network.parameters())
    for thing, words in (
        (trained.config, ("run small", "state", "[t850, msl, u10, v10, z500]", "patience")),
        (forecaster, (f"{number:,} parameters", "msl (Pa)", "32 × 64", "2 steps of 6h")),
        (audit, ("passed" if audit.passed else "failed", (audit.digest or "")[:12])),
        (evaluation, ("rmse, global", "persistence", "power_spectrum")),
    ):
        shown = thing._repr_html_()
        page = Page(shown)
        assert not page.wrong
        assert "<script" not in shown
        text = " ".join("".join(page.text.values()).split())
        for word in words:
            assert word in text, word


def test_a_failed_audit_shows_its_findings_first_errors():
    from climlstm.audit.audit import Audit
    from climlstm.audit.findings import Finding

    note = Finding("some-note", "note", "Chunks are small", "source", "1 MiB", "Prepare it.")
    error = Finding("some-error", "error", "Periods overlap", "data", "a < b", "Part them.")
    shown = Audit((note, error))._repr_html_()
    assert shown.index("Periods overlap") < shown.index("Chunks are small")
    assert "a &lt; b" in shown
    assert "1 errors, 2 findings" in shown


def test_no_number_is_lost_where_a_variable_has_no_level():
    """A regression: a table of one variable without level kept its rows when grouped."""
    from climlstm.report.sections import _readable

    rows = pd.DataFrame(
        {"variable": ["t2m", "z"], "level": pd.array([None, 500], "Float64"), "units": ["K", None],
         "value": [1.0, 98.0665], "ci_low": np.nan, "ci_high": np.nan}
    )  # fmt: skip
    found = _readable(rows)
    assert list(found["units"]) == ["K", "dam"]
    np.testing.assert_allclose(found["value"], [1.0, 1.0])
