"""Names of other libraries that are not public: which, where, and whether this release has them.

Each stands behind a guard or a plainer way; a release without one costs what the guard says. Where
a test here fails, look at that guard, then write the release down.
"""

import ast
import importlib
import os
from importlib.metadata import version
from pathlib import Path

import pytest

import climlstm

ROOT = Path(climlstm.__file__).parent
CLAIMS = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
KNOWN = {
    "climlstm/on_ray/private.py": {
        "ray.train.v2._internal.execution.context.get_train_context",
        CLAIMS,
        f"{CLAIMS}.AUTOSCALING_REQUESTS_EXPIRE_TIME_S",
        f"{CLAIMS}.AUTOSCALING_REQUESTS_INTERVAL_S",
        "ray._private",
        "ray._private.ray_constants",
    },
    "climlstm/data/store/remote.py": {"zarr.core.sync._get_loop"},
    "climlstm/data/store/stored.py": {
        "zarrs._internal.ChunkItem",
        "zarrs._internal.CodecPipelineImpl",
    },
    "climlstm/model/kernels/convolution.py": {
        "torch.ops.mkldnn._reorder_convolution_weight",
        "torch.ops.mkldnn._convolution_pointwise",
        "torch.ops.mkldnn._convolution_pointwise_",
        "torch.ops.mkldnn._convolution_pointwise_.binary",
    },
    "climlstm/model/kernels/recurrence.py": {
        "torch._C",
        "torch._C._autograd",
        "torch._C._autograd._get_current_graph_task_keep_graph",
    },
    "climlstm/training/untrained.py": {
        "torch.cpu._is_amx_tile_supported",
        "torch.cpu._is_avx512_bf16_supported",
    },
}
TRIED_WITH = {"ray": "2.60.0", "torch": "2.13.0", "zarr": "3.1.6", "zarrs": "0.2.3"}
OURS = {
    "climlstm",
    "climlstm_storms",
    "climlstm_wind",
    "climlstm_spectral",
    "climlstm_nowcast",
    "climlstm_climate",
    "os",
}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names(path):
    """Dotted names of other libraries with a private part that a module uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                bound[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            bound |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    used = set(bound.values())
    for node in ast.walk(tree):
        dotted = dotted_name(node, bound)
        if dotted:
            used.add(dotted)
    return {
        name
        for name in used
        if name.split(".")[0] not in OURS and any(map(is_private, name.split(".")))
    }


def dotted_name(node, bound):
    """The name in full of `a.b`, or of `getattr(a, "b", ...)`, where an import has brought `a`."""
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.Attribute):
        owner, name = node.value, node.attr
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and isinstance(node.args[1], ast.Constant)
    ):
        owner, name = node.args[0], node.args[1].value
    else:
        return None
    place = dotted_name(owner, bound)
    return f"{place}.{name}" if place else None


def test_private_names_stand_where_they_are_guarded():
    found = {}
    folders = [ROOT, *ROOT.parent.glob("plugins/*/climlstm_*")]
    for path in sorted(p for folder in folders for p in folder.rglob("*.py")):
        names = private_names(path)
        if names:
            found[path.relative_to(ROOT.parent).as_posix()] = names
    assert found == KNOWN


@pytest.mark.parametrize("name", sorted(set().union(*KNOWN.values())))
def test_this_release_has_them(name):
    library = name.split(".")[0]
    pytest.importorskip(library)
    parts = name.split(".")
    place = importlib.import_module(library)
    for number, part in enumerate(parts[1:], start=2):
        if not hasattr(place, part):
            try:
                importlib.import_module(".".join(parts[:number]))
            except ImportError:
                had = f"{library} {TRIED_WITH[library]} had it"
                pytest.fail(f"{library} {version(library)} has no {name} any more; {had}")
        place = getattr(place, part)


def test_ray_has_the_constant_that_keeps_it_on_loopback():
    pytest.importorskip("ray")
    from ray._private import ray_constants

    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)


def test_a_ray_without_them_is_used_with_a_warning(monkeypatch, caplog):
    pytest.importorskip("ray")
    import ray

    from climlstm.on_ray import private

    monkeypatch.delenv(private.LOOPBACK_ONLY, raising=False)
    monkeypatch.setattr(ray, "_private", None)
    with private.on_loopback():
        assert os.environ[private.LOOPBACK_ONLY] == "0"
    assert private.LOOPBACK_ONLY not in os.environ
    assert "its ports may be open to the network" in caplog.text
    monkeypatch.setitem(importlib.sys.modules, "ray.train.v2._internal.execution.context", None)
    monkeypatch.setitem(
        importlib.sys.modules, "ray.train.v2._internal.execution.scaling_policy", None
    )
    assert private.is_host_going() is False
    private.expire_claims(20)
    assert "may wait for three minutes" in caplog.text
