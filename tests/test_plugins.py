"""The plugin door: discovery, names, options, and what is said when something is wrong."""

import json
import pathlib
import shutil
import sys
import time

import pytest

from climlstm import plugins, runs
from climlstm.config import dump_config, load_config, parse_config, used_plugins
from climlstm.errors import ConfigError, PluginError
from climlstm.evaluation.scores import RMSE
from climlstm.forecasting import open_forecasts
from climlstm.plugins.channels import channel
from climlstm.runs import find_trained
from tests.installing import LOSS


def test_built_in_plugins_come_through_the_same_door():
    names = {plugin.name for plugin in plugins.discover("losses")}
    assert {"mse", "mae", "huber"} <= names
    assert all(p.distribution == "climlstm" for p in plugins.discover("losses") if p.name == "mse")


def test_a_plugin_is_found_by_name_and_made_with_its_options(install):
    install("spectral", LOSS, "[climlstm.losses]\npowered = spectral_module:Loss\n")
    loss = plugins.create("losses", "powered", {"power": 3})
    assert loss.power == 3.0


def test_listing_imports_nothing_and_does_not_fail_on_a_broken_package(install):
    install("broken", "raise RuntimeError('no')", "[climlstm.losses]\nbad = broken_module:Loss\n")
    assert "bad" in {plugin.name for plugin in plugins.discover("losses")}
    assert "broken_module" not in sys.modules


def test_a_broken_package_is_named_with_version_and_cause(install):
    install("broken", "raise RuntimeError('no')", "[climlstm.losses]\nbad = broken_module:Loss\n")
    with pytest.raises(PluginError, match=r"loss 'bad' .*broken 1\.0.*RuntimeError: no"):
        plugins.load("losses", "bad")


def test_two_packages_with_one_name_are_told_apart(install):
    install("one", LOSS, "[climlstm.losses]\nshared = one_module:Loss\n")
    install("two", LOSS, "[climlstm.losses]\nshared = two_module:Loss\n", version="2.0")
    with pytest.raises(PluginError, match=r"'one:shared' \(1\.0\) or 'two:shared' \(2\.0\)"):
        plugins.load("losses", "shared")
    assert plugins.load("losses", "two:shared").__module__ == "two_module"


def test_a_built_in_is_not_overridden_silently(install):
    install("impostor", LOSS, "[climlstm.losses]\nmse = impostor_module:Loss\n")
    with pytest.raises(PluginError, match="'climlstm:mse'"):
        plugins.load("losses", "mse")


def test_an_interface_version_that_does_not_fit_is_refused(install):
    module = LOSS + "\nLoss.api_version = 99\n"
    install("future", module, "[climlstm.losses]\nfuture = future_module:Loss\n")
    with pytest.raises(PluginError, match=r"version 99 .* has version 1"):
        plugins.load("losses", "future")


def test_an_object_that_is_not_packaged_works_by_module_and_attribute(install):
    install("loose", LOSS, "")
    assert plugins.create("losses", "loose_module:Loss", {}).power == 2.0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("huberr", {}, "Did you mean 'huber'?"),
        ("huber", {"dleta": 1}, "Did you mean 'delta'?"),
        (
            "huber",
            {"delta": "wide"},
            "model.losses:Huber): option 'delta' is 'wide'",
        ),
        ("huber", {"delta": 0}, "greater than 0"),
    ],
)
def test_options_are_validated_by_the_plugins_own_schema(name, options, says):
    with pytest.raises(PluginError) as error:
        plugins.check_options("losses", name, options)
    assert says in str(error.value)


def test_defaults_are_filled_in():
    assert plugins.check_options("losses", "huber", {}) == {"delta": 1.0}


def test_packages_can_be_shut_out(install, monkeypatch):
    install("spectral", LOSS, "[climlstm.losses]\npowered = spectral_module:Loss\n")
    monkeypatch.setenv("CLIMLSTM_PLUGINS", "")
    assert "powered" not in {plugin.name for plugin in plugins.discover("losses")}


def test_listing_says_what_is_wrong_with_each(install):
    install("sound", LOSS, "[climlstm.losses]\nsound = sound_module:Loss\n")
    install("broken", "raise RuntimeError('no')", "[climlstm.losses]\nbad = broken_module:Loss\n")
    install("hollow", "", "[climlstm.losses]\nhollow = nowhere_to_be_found:Loss\n")
    install(
        "future",
        LOSS + "\nLoss.api_version = 99\n",
        "[climlstm.losses]\nnew = future_module:Loss\n",
    )
    install("twin", LOSS, "[climlstm.losses]\nsound = twin_module:Loss\n", version="2.0")
    found = plugins.discover("losses")

    def states(**how):
        return {
            f"{p.distribution}:{p.name}": plugins.state(p, found, **how)
            for p in found
            if p.distribution != "climlstm" and p.name in ("sound", "bad", "hollow", "new")
        }

    unseen = states()
    assert {name: state.word for name, state in unseen.items()} == {
        "sound:sound": "conflict",
        "twin:sound": "conflict",
        "broken:bad": "found",
        "hollow:hollow": "broken",
        "future:new": "found",
    }
    assert "twin:sound" in unseen["sound:sound"].reason
    assert "broken_module" not in sys.modules
    tried = states(load=True)
    assert tried["broken:bad"].word == "broken"
    assert "RuntimeError: no" in tried["broken:bad"].reason
    assert tried["future:new"].word == "API mismatch"
    assert "99" in tried["future:new"].reason


def test_what_a_notebook_defines_can_be_named(monkeypatch):
    import __main__

    space = {"__name__": "__main__"}
    exec(LOSS, space)
    monkeypatch.setattr(__main__, "Mine", space["Loss"], raising=False)
    assert plugins.create("losses", "__main__:Mine", {"power": 3}).power == 3.0


def test_the_plugins_of_a_run_are_recorded_with_what_they_are_derived_from(install):
    derived = """
    from climlstm.plugins import Variable
    GUST = Variable("gust", "gust", "m s-1", inputs=("ws10",), derive=lambda ds: ds["ws10"])
    """
    install("windy", derived, "[climlstm.variables]\ngust = windy_module:GUST\n", version="1.2")
    install("spectral", LOSS, "[climlstm.losses]\npowered = spectral_module:Loss\n")
    run = parse_config(RUN | {"training": {"loss": {"name": "powered"}}}, where="run.yaml")
    used = used_plugins(run)
    names = {(p.kind, p.name, p.distribution, p.version) for p in used}
    ours = plugins.find("models", "convlstm").version
    assert ("models", "convlstm", "climlstm", ours) in names
    assert ("losses", "powered", "spectral", "1.0") in names
    assert ("variables", "gust", "windy", "1.2") in names
    assert {name for kind, name, *_ in names if kind == "variables"} == {
        *("gust", "ws10", "u10", "v10", "z"),
    }
    assert plugins.missing(used) == plugins.changed(used) == []


RUN = {
    "name": "run",
    "data": {
        "catalog": "catalog.yaml",
        "source": "era5",
        "step": "6h",
        "state": ["gust", "z500"],
        "periods": {
            "train": ["2001-01-01", "2001-12-31"],
            "valid": ["2002-01-01", "2002-12-31"],
            "test": ["2003-01-01", "2003-12-31"],
        },
    },
}


def test_what_a_record_misses_is_said_with_how_to_install_it(install):
    lost = plugins.Plugin("losses", "lost", "lost_module:Loss", "climlstm-lost", "1.4")
    here = plugins.find("losses", "mse")
    (message,) = plugins.missing([here, lost])
    assert "loss 'lost' of climlstm-lost 1.4" in message
    assert "pip install climlstm-lost==1.4" in message
    mine = plugins.Plugin("losses", "gone_module:Loss", "gone_module:Loss", "", "")
    assert "Put the module 'gone_module' on PYTHONPATH" in plugins.missing([mine])[0]
    install("rival", LOSS, "[climlstm.losses]\nlost = rival_module:Loss\n")
    assert "another one of that name is, of rival 1.0" in plugins.missing([lost])[0]
    install("climlstm-lost", LOSS, "[climlstm.losses]\nlost = lost_module:Loss\n", version="1.5")
    assert plugins.missing([lost]) == []
    assert plugins.changed([here, lost]) == [f"the {lost} is installed in version 1.5"]


def test_an_object_that_is_not_packaged_is_recorded_by_its_module(install):
    install("loose", LOSS, "")
    mine = plugins.identify("losses", "loose_module:Loss")
    assert (mine.value, mine.distribution) == ("loose_module:Loss", "")
    assert plugins.missing([mine]) == []
    ours = plugins.identify("losses", "climlstm.model.losses:MSE")
    assert ours.distribution == "climlstm"


def test_a_malformed_list_of_entry_points_hides_no_other(install, caplog):
    install("sound", LOSS, "[climlstm.losses]\nsound = sound_module:Loss\n")
    install("malformed", LOSS, "[climlstm.losses]\nthis line has no equals sign\n")
    assert {"mse", "sound"} <= {plugin.name for plugin in plugins.discover("losses")}
    assert "malformed 1.0 cannot be read" in caplog.text


def test_what_is_installed_changed_or_removed_is_seen_at_once(install):
    def names():
        return {p.name for p in plugins.discover("losses") if p.distribution == "early"}

    assert names() == set()
    home = install("early", LOSS, "[climlstm.losses]\none = early_module:Loss\n")
    assert names() == {"one"}
    info = home / "early-1.0.dist-info"
    (info / "entry_points.txt").write_text("[climlstm.losses]\ntwo = early_module:Loss\n")
    assert names() == {"two"}
    shutil.rmtree(info)
    assert names() == set()


def test_asking_again_costs_next_to_nothing():
    plugins.discover("losses")
    began = time.perf_counter()
    for _ in range(100):
        plugins.discover("losses")
    assert time.perf_counter() - began < 0.3  # 30 ms each without having kept it


NESTED = """
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Band:
    first: int = 1
    last: int = 9

@dataclass(frozen=True)
class Loss:
    bands: tuple[Band, ...] = ()
    main: Band | None = None
    names: dict[str, int] = field(default_factory=dict)
    def __post_init__(self):
        {}["no such key"] if self.names else None
    def __call__(self, prediction, target, *, weight, channels):
        return (weight * (prediction - target) ** 2).mean()
"""


def test_keys_are_checked_inside_of_options_too(install):
    install("deep", NESTED, "[climlstm.losses]\nbanded = deep_module:Loss\n")
    options = {"main": {"frist": 2}, "bands": [{"first": 1}, {"lst": 5}]}
    with pytest.raises(PluginError) as refused:
        plugins.check_options("losses", "banded", options)
    said = str(refused.value)
    assert "loss 'banded' of deep 1.0" in said
    assert "unknown option 'main.frist'. Did you mean 'first'?" in said
    assert "unknown option 'bands.1.lst'. Did you mean 'last'?" in said
    made = plugins.create("losses", "banded", {"main": {"first": 2}, "bands": [{"last": 3}]})
    assert (made.main.first, made.bands[0].last) == (2, 3)
    with pytest.raises(PluginError, match=r"refuses the options .*KeyError: 'no such key'"):
        plugins.check_options("losses", "banded", {"names": {"a": 1}})


def test_a_pydantic_model_is_a_schema_too_and_what_is_missing_is_named(install):
    module = """
    from pydantic import BaseModel, ConfigDict

    class Loss(BaseModel):
        model_config = ConfigDict(frozen=True)
        power: float
        def __call__(self, prediction, target, *, weight, channels):
            return (weight * (prediction - target).abs() ** self.power).mean()
    """
    install("modelled", module, "[climlstm.losses]\nmodelled = modelled_module:Loss\n")
    assert plugins.create("losses", "modelled", {"power": 3}).power == 3.0
    with pytest.raises(PluginError, match="the option 'power' is missing"):
        plugins.check_options("losses", "modelled", {})


def test_an_annotation_that_no_run_file_can_hold_is_its_authors_mistake(install):
    module = LOSS.replace("power: float = 2.0", "power: 'Nothing' = 2.0")
    install("odd", module, "[climlstm.losses]\nodd = odd_module:Loss\n")
    with pytest.raises(
        PluginError, match=r"(?s)loss 'odd' of odd 1\.0 .*cannot be validated: .*Nothing"
    ):
        plugins.check_options("losses", "odd", {"power": 1})


def test_a_run_file_is_told_everything_that_is_wrong_with_its_plugins_and_where():
    content = RUN | {
        "data": RUN["data"] | {"state": ["climlstm:t2n", "z500"]},
        "model": {"name": "convlstm", "options": {"hiden": [8]}},
        "training": {"loss": {"name": "hubr"}},
        "evaluation": {"evaluators": [{"name": "rmse"}, {"name": "acc", "options": {"x": 1}}]},
    }
    with pytest.raises(ConfigError) as refused:
        parse_config(content, where="run.yaml")
    said = str(refused.value)
    for part in (
        "run.yaml: ",
        "model.options: The model 'convlstm' of climlstm",
        "unknown option 'hiden'. Did you mean 'hidden'?",
        "training.loss: There is no loss 'hubr' installed. Did you mean 'huber'?",
        "evaluation.evaluators.1.options: The evaluator 'acc' of climlstm",
        "data.state: There is no channel 'climlstm:t2n'. Did you mean 't2m'?",
    ):
        assert part in said


def test_one_name_of_two_variables_is_settled_by_the_distribution(install):
    module = """
    from climlstm.plugins import Variable
    SKT = Variable("skt", "skin temperature", "{}", aliases=("skt",), on_levels={})
    """
    entry = "[climlstm.variables]\nskt = {}_module:SKT\n"
    install("first", module.format("K", False), entry.format("first"))
    install("second", module.format("m", True), entry.format("second"))
    with pytest.raises(PluginError, match=r"'first:skt' \(1\.0\) or 'second:skt' \(1\.0\)"):
        channel("skt")
    assert channel("first:skt").variable.units == "K"
    on_level = channel("second:skt500")
    assert (on_level.name, on_level.variable.units, on_level.level) == ("second:skt500", "m", 500)
    with pytest.raises(PluginError, match="'second:skt500'"):
        channel("second:skt")
    with pytest.raises(PluginError, match=r"no channel 'first:skd'\. Did you mean 'skt'"):
        channel("first:skd")
    assert channel("second_module:SKT850").level == 850
    assert channel("first_module:SKT").variable.units == "K"


def test_a_name_with_digits_at_its_end_is_not_cut_in_errors(install):
    install("mine", "from climlstm.plugins import Variable\nPM10 = Variable('pm10', '', 'm')", "")
    assert channel("mine_module:PM10").level is None
    with pytest.raises(PluginError, match="variable 'mine_module:PM25' "):
        channel("mine_module:PM25")


def test_an_object_that_python_has_at_hand_goes_into_the_run_itself(install, tmp_path):
    module = LOSS + (
        "\nfrom climlstm.plugins import Variable\n"
        "GUST = Variable('gust', 'gust', 'm s-1', inputs=('u10',), derive=lambda ds: ds['u10'])\n"
    )
    install("notebook", module, "")
    import notebook_module as mine

    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(RUN | {"data": RUN["data"] | {"state": ["t2m"]}}))
    values = {
        "training.loss": mine.Loss(power=3.0),
        "data.state": ["t2m", mine.GUST],
        "evaluation.evaluators": [RMSE()],
    }
    run = load_config(file, ["training.epochs=2"], values=values)
    assert (run.training.loss.name, run.training.epochs) == ("notebook_module:Loss", 2)
    assert run.training.loss.options == {"power": 3.0}
    assert run.data.state == ("t2m", "notebook_module:GUST")
    file.write_text(dump_config(run))
    again = load_config(file)
    assert plugins.create("losses", again.training.loss.name, again.training.loss.options) == (
        mine.Loss(power=3.0)
    )

    class Local(mine.Loss):
        pass

    with pytest.raises(PluginError, match="Define it at the top level"):
        load_config(file, values={"training.loss": Local()})
    loose = plugins.Variable("gust", "gust", "m s-1")
    with pytest.raises(PluginError, match="Assign it to a name"):
        load_config(file, values={"data.state": [loose]})


MINE = """
from dataclasses import dataclass
from climlstm.evaluation.scores import RMSE
from climlstm.model.convlstm import ConvLSTM
from climlstm.model.losses import MSE
from climlstm.plugins import Variable

GUST = Variable(
    "gust", "gust of the wind", "m s-1", inputs=("u10", "v10"),
    derive=lambda ds: 1.5 * (ds["u10"] ** 2 + ds["v10"] ** 2) ** 0.5,
)
Z = Variable("z", "geopotential of another mind", "m2 s-2", era5_name="geopotential",
             aliases=("z",), on_levels=True)

@dataclass(frozen=True)
class Squared(MSE):
    pass

@dataclass(frozen=True)
class Root(RMSE):
    pass

class Network(ConvLSTM):
    pass
"""


@pytest.mark.slow
def test_a_run_of_foreign_plugins_goes_the_whole_way(install, small_run):
    """Modules of the user's own, a name that two packages offer: train, forecast, score."""
    install("mine", MINE, "")
    install("rival", MINE, "[climlstm.variables]\nz = rival_module:Z\n")
    channels = ["msl", "mine_module:GUST", "climlstm:z500"]
    run = small_run(
        f"data.state={channels}",
        "training.epochs=1",
        "training.loss={name: 'mine_module:Squared'}",
        "model={name: 'mine_module:Network', options: {hidden: [8]}}",
        "evaluation.evaluators=[{name: 'mine_module:Root'}]",
        "data.static=[]",
    )
    trained = find_trained(runs.train(run, under_ray=False))
    store = pathlib.Path(run.cluster.storage) / "forecasts.zarr"
    runs.forecast(trained, store)
    forecasts = open_forecasts(store)
    assert set(forecasts.data_vars) == set(channels)
    assert forecasts["mine_module:GUST"].attrs["units"] == "m s-1"
    scores = runs.evaluate(forecasts, baselines=()).scores
    assert set(scores["variable"]) == {"msl", "gust", "z"}
    passed = plugins.load("evaluators", "mine_module:Root")()
    again = runs.evaluate(forecasts, evaluators=[passed], baselines=()).scores
    assert again["value"].equals(scores["value"])


def test_a_file_of_others_does_not_make_us_import_a_module(install, monkeypatch):
    install("loose", LOSS, "")
    install("packaged", LOSS, "[climlstm.losses]\npackaged = packaged_module:Loss\n")
    with plugins.read_from_a_file():
        with pytest.raises(PluginError, match="set CLIMLSTM_MODULES=loose_module"):
            plugins.load("losses", "loose_module:Loss")
        assert "loose_module" not in sys.modules
        assert plugins.missing([plugins.Plugin("losses", *["loose_module:Loss"] * 2, "", "")])
        assert plugins.load("losses", "packaged_module:Loss").__name__ == "Loss"
        monkeypatch.setenv("CLIMLSTM_MODULES", "another,loose_module")
        assert plugins.load("losses", "loose_module:Loss").__name__ == "Loss"
