"""Property-based tests (hypothesis): any run file and any checkpoint is read or refused."""

import copy
import json
import math
import os
import shutil
from contextlib import suppress

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climlstm.config import Config, dump_config, load_config, parse_config
from climlstm.config.secrets import redact
from climlstm.errors import CheckpointError, ClimLSTMError, ConfigError
from climlstm.model.saving import read_forecaster
from climlstm.training import checkpoint
from climlstm.training.progress import parse_journal

RUN = {
    "name": "small",
    "data": {
        "catalog": "catalog.yaml",
        "source": "s",
        "step": "6h",
        "state": ["t2m", "z500"],
        "forcing": ["season"],
        "periods": {
            "train": ["2001-01-01", "2001-01-20"],
            "valid": ["2001-01-21", "2001-01-25"],
            "test": ["2001-01-26", "2001-01-30"],
        },
        "region": {"latitude": [75, 30], "longitude": [-25, 45]},
    },
    "model": {"name": "convlstm", "history": 2, "options": {"hidden": [4]}},
    "training": {"horizon": 1, "epochs": 1, "batch_size": 4, "loss": {"name": "mse"}},
    "forecast": {"steps": 4, "every": "12h"},
    "evaluation": {"evaluators": [{"name": "rmse"}], "regions": ["global"]},
    "cluster": {"workers": 2, "storage": "runs"},
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["6h", "2001-01-01", "mse", "t2m", "../x", "s3://a:b@c", "1e999", "{{ x }}"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
quick = settings(
    max_examples=int(os.environ.get("CLIMLSTM_EXAMPLES", "40")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def places(content, path=()):
    """Ways to every value of nested dictionaries and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def put(content, place, value):
    changed = copy.deepcopy(content)
    section = changed
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    return changed


@quick
@given(place=st.sampled_from(list(places(RUN))), value=anything)
def test_anything_in_the_place_of_anything_is_a_run_or_an_error(place, value):
    with suppress(ConfigError):
        assert isinstance(parse_config(put(RUN, place, value), where="run.yaml"), Config)


@quick
@given(place=st.sampled_from(list(places(RUN))), value=anything)
def test_a_run_that_is_read_is_written_and_read_back_alike(place, value):
    try:
        config = parse_config(put(RUN, place, value), where="run.yaml")
    except ConfigError:
        return
    again = parse_config(yaml.safe_load(dump_config(config)), where="again")
    assert again == config or math.nan in map(_nan, config.training.model_dump().values())


def _nan(value):
    return math.nan if isinstance(value, float) and math.isnan(value) else 0


@quick
@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_a_run_file_or_an_error(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        load_config(path)


@quick
@given(overrides=st.lists(st.text(max_size=40), max_size=3))
def test_any_override_is_taken_or_refused(tmp_path, overrides):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RUN))
    with suppress(ConfigError):
        assert isinstance(load_config(path, overrides), Config)


@pytest.fixture
def spoilt(trained, tmp_path):
    """A checkpoint that may be spoilt, with all its files as they were."""
    folder = shutil.copytree(trained.checkpoint, tmp_path / "run" / "step-000000044")
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


PARTS = ("forecaster.json", "forecaster.safetensors", "training.json", "training.safetensors")


@quick
@given(
    part=st.sampled_from(PARTS),
    where=st.floats(0, 1, exclude_max=True),
    change=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_a_checkpoint_with_any_damage_is_noticed_or_harmless(spoilt, part, where, change, cut):
    """Tensors are guarded by their digest. A description either fails or gives the same tensors."""
    folder, contents = spoilt
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    whole = contents[part]
    at = int(where * len(whole))
    damaged = whole[:at] if cut else whole[:at] + change + whole[at + len(change) :]
    (folder / part).write_bytes(damaged)
    if part.endswith(".safetensors") and damaged != whole:
        with pytest.raises(CheckpointError):
            checkpoint.check(folder)
        assert checkpoint.latest_checkpoint(folder.parent) is None
    for read in (read_forecaster, checkpoint.read_training):
        with suppress(ClimLSTMError):
            read(folder)


@quick
@given(content=st.dictionaries(st.text(max_size=10), anything, max_size=5) | anything)
def test_any_description_is_refused(spoilt, content):
    folder, _ = spoilt
    for name in ("forecaster.json", "training.json"):
        (folder / name).write_text(json.dumps(content))
    for read in (read_forecaster, checkpoint.read_training, checkpoint.check):
        with pytest.raises(CheckpointError):
            read(folder)


@quick
@given(text=st.text())
def test_any_journal_is_read(text):
    assert all("event" in record for record in parse_journal(text))


@quick
@given(text=st.text(max_size=300))
def test_hiding_secrets_never_fails_and_is_done_once(text):
    assert redact(redact(text)) == redact(text)
