"""Checkpoints that are damaged or lie: one clear error, never code that runs or a crash."""

import json
import pickle
import shutil
import struct

import pytest

from climlstm.errors import CheckpointError, ClimLSTMError
from climlstm.model.saving import digest, read_forecaster
from climlstm.runs import find_trained
from climlstm.training import checkpoint


@pytest.fixture
def copy(trained, tmp_path):
    """A whole checkpoint that may be spoilt."""
    return shutil.copytree(trained.checkpoint, tmp_path / "run" / trained.checkpoint.name)


def describe(directory, change, part="forecaster"):
    """Change a checkpoint's description, and note the digest of the tensors that are there now."""
    path = directory / f"{part}.json"
    content = json.loads(path.read_text())
    content["sha256"] = digest(directory / f"{part}.safetensors")
    change(content)
    path.write_text(json.dumps(content))


def header(size, text=b"{}"):
    return struct.pack("<Q", size) + text


class Flag:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("part", ["forecaster", "training"])
@pytest.mark.parametrize(
    "content",
    [
        header(2**62),
        header(10**9, b"{" * 1000),
        header(0, b""),
        b"",
        b"\x00",
        header(len(t := b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'), t),
        header(len(t := b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}'), t + b"0000"),
        header(2),
    ],
    ids=["huge", "longer than the file", "empty", "no", "short", "lying", "backwards", "none"],
)
def test_tensors_that_lie_are_refused(copy, part, content):
    (copy / f"{part}.safetensors").write_bytes(content)
    describe(copy, lambda c: None, part)
    if part == "forecaster":
        with pytest.raises(CheckpointError):
            read_forecaster(copy)
    elif content == header(2):  # no tensors at all: a file as it should be, of another network
        assert checkpoint.read_training(copy)[1] == {}
    else:
        with pytest.raises(CheckpointError):
            checkpoint.read_training(copy)


def test_pickles_are_not_opened(copy, tmp_path):
    flag = tmp_path / "flag"
    for part in ("forecaster", "training"):
        (copy / f"{part}.safetensors").write_bytes(pickle.dumps(Flag(flag)))
        describe(copy, lambda c: None, part)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_forecaster(copy)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read_training(copy)
    (copy / "forecaster.json").write_bytes(pickle.dumps(Flag(flag)))
    with pytest.raises(CheckpointError, match="damaged"):
        read_forecaster(copy)
    assert not flag.exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "[" * 100_000, '{"format": 1}', '{"format": 1, "sha256": 5}', "\udc80"],
)
def test_descriptions_that_are_none(copy, text):
    for name in ("forecaster.json", "training.json"):
        (copy / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError):
        read_forecaster(copy)
    with pytest.raises(CheckpointError):
        checkpoint.read_training(copy)
    with pytest.raises(CheckpointError):
        find_trained(copy)


def test_a_description_too_large_to_be_ours(copy):
    with (copy / "forecaster.json").open("wb") as file:
        file.truncate(70 * 2**20)
    with pytest.raises(CheckpointError, match="larger than 64 MiB"):
        read_forecaster(copy)


@pytest.mark.parametrize("key", ["spec", "plugin", "provenance", "sha256", "format"])
@pytest.mark.parametrize("value", [None, [], "x", 7, {"a": 1}])
def test_descriptions_with_anything_in_the_place_of_anything(copy, key, value):
    describe(copy, lambda c: c.update({key: value}))
    if key == "plugin":  # only named where the network is not installed
        describe(copy, lambda c: c["spec"].update(network="not-installed"))
    with pytest.raises(CheckpointError):
        find_trained(copy) if key == "provenance" else read_forecaster(copy)


@pytest.mark.parametrize(
    "spec",
    [
        {"network": "../../evil"},
        {"network": "os:system"},
        {"channels": []},
        {"channels": ["../../etc/passwd"] * 5},
        {"step_seconds": 1e300},
        {"step_seconds": "6h"},
        {"latitude": ["north"]},
        {"latitude": []},
        {"longitude": None},
        {"sign": [1, 2]},
        {"history": -3},
        {"options": {"hidden": [10**6]}},
        {"options": {"hidden": "os.system"}},
        {"options": []},
    ],
    ids=lambda spec: json.dumps(spec)[:40],
)
def test_specs_that_do_not_fit(copy, spec):
    describe(copy, lambda c: c["spec"].update(spec))
    with pytest.raises(ClimLSTMError):
        read_forecaster(copy)


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/b", "", ".."])
def test_names_that_lead_elsewhere(copy, name):
    describe(copy, lambda c: c["provenance"]["config"].update(name=name))
    with pytest.raises(ClimLSTMError, match="name"):
        find_trained(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"position": {"epoch": -1, "batch": 0, "step": 0}},
        {"position": {"epoch": "0", "batch": 0, "step": 0}},
        {"position": {"epoch": 0, "batch": 0, "step": 0, "path": "../x"}},
        {"position": "../../x"},
        {"best_loss": "nan"},
        {"since_best": None},
        {"command": "true"},
    ],
    ids=json.dumps,
)
def test_positions_that_are_none(copy, change):
    describe(copy, lambda c: c.update(change), "training")
    with pytest.raises(CheckpointError):
        checkpoint.read_training(copy)


def test_a_spoilt_checkpoint_is_passed_over_for_the_one_before(trained, tmp_path):
    run = tmp_path / "run"
    older = shutil.copytree(trained.checkpoint, run / "step-000000001")
    newer = shutil.copytree(trained.checkpoint, run / "step-000000002")
    for name in ("forecaster.json", "training.json", "training.safetensors"):
        kept = (newer / name).read_bytes()
        for spoilt in (b"", kept[: len(kept) // 2], b"[" * 100_000):
            (newer / name).write_bytes(spoilt)
            assert checkpoint.latest_checkpoint(run) == older, name
        (newer / name).write_bytes(kept)
    assert checkpoint.latest_checkpoint(run) == newer
