"""The plugin door: discovery, names, options, and what is said when something is wrong."""

import sys
import textwrap

import pytest

from climlstm import plugins
from climlstm.errors import PluginError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module and some entry points, by its metadata."""

    def install(name, module, entries, version="1.0"):
        home = tmp_path / name
        info = home / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entries))
        (home / f"{name}_module.py").write_text(textwrap.dedent(module))
        monkeypatch.syspath_prepend(str(home))
        return home

    yield install
    for name in [n for n in sys.modules if n.endswith("_module")]:
        del sys.modules[name]


LOSS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Loss:
    power: float = 2.0
    def __call__(self, prediction, target, *, weight, channels):
        return (weight * (prediction - target).abs() ** self.power).mean()
"""


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
        ("huber", {"delta": "wide"}, "Option 'delta' of the loss 'huber' is 'wide'"),
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
