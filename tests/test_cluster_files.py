"""The launch files: what Ray itself says of them, and whether the Slurm script ends cleanly.

KubeRay's schema (1.4 MB) is not kept here. Instead, the fields of `cluster/rayjob.yaml` are
compared with those that its reference documents for version 1.7 of the operator, ray.io/v1.
"""

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from climlstm import cli

CLUSTER = Path(__file__).parents[1] / "cluster"
LAUNCHERS = ["on-premise.yaml", "aws.yaml", "gcp.yaml"]


def read(name):
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture(scope="module")
def ray_util():
    return pytest.importorskip("ray.autoscaler._private.util", reason="needs climlstm[ray]")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_the_launcher_file(ray_util, name):
    prepared = ray_util.prepare_config(read(name))
    ray_util.validate_config(prepared)
    assert prepared["max_workers"] >= 2


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_launcher_file_fits_the_schema_that_ray_brings(ray_util, name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(ray_util.__file__).parents[1].joinpath("ray-schema.json").read_text())
    config = read(name)
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 2}, schema)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_dashboard_is_not_open_to_the_world(name):
    config = read(name)
    head = " ".join(config["head_start_ray_commands"])
    workers = " ".join(config["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert all("RAY_AUTH_MODE=token" in commands for commands in (head, workers))


# Fields of ray.io/v1, as far as we use them: docs.ray.io, KubeRay API reference, version 1.7.
POD_TEMPLATE = {"spec": object}
RAY_JOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "submissionMode": {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"},
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "activeDeadlineSeconds": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "enableInTreeAutoscaling": bool,
            "authOptions": {"mode": {"token", "disabled"}},
            "headGroupSpec": {"rayStartParams": object, "template": POD_TEMPLATE},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "idleTimeoutSeconds": int,
                    "numOfHosts": int,
                    "rayStartParams": object,
                    "template": POD_TEMPLATE,
                }
            ],
        },
    },
}


def misfits(value, expected, place=""):
    """Yield where a manifest has what the reference does not document."""
    if isinstance(expected, dict) and isinstance(value, dict):
        for key, inner in value.items():
            if key in expected:
                yield from misfits(inner, expected[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}: unknown"
    elif isinstance(expected, list) and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from misfits(inner, expected[0], f"{place}[{number}]")
    elif isinstance(expected, set):
        if value not in expected:
            yield f"{place}: {value!r} is none of {sorted(expected)}"
    elif not (isinstance(expected, type) and isinstance(value, expected)):
        yield f"{place}: {value!r} is not {expected}"


def test_the_rayjob_has_only_documented_fields():
    assert list(misfits(read("rayjob.yaml"), RAY_JOB)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entrypoint"), ["climlstm"]),
        (("spec", "submissionMode"), "K8sJob"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"), 3),
    ],
)
def test_a_wrong_rayjob_is_noticed(path, value):
    manifest = copy.deepcopy(read("rayjob.yaml"))
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert len(list(misfits(manifest, RAY_JOB))) == 1


def test_the_rayjob_can_be_scheduled_and_go_on():
    spec = read("rayjob.yaml")["spec"]
    assert "--resume" in spec["entrypoint"]
    assert spec["backoffLimit"] > 0
    cluster = spec["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_bash_can_read_the_slurm_script():
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)


# Stand-ins for Slurm's commands, which note how they were called. Like the real one, srun ends with
# what it started; the pretended Ray runs until it is told to end, and notes that too.
STUBS = {
    "scontrol": 'case $1 in show) printf "%s\\n" n1 n2;; *) echo "scontrol $*" >> $LOG;; esac',
    "srun": (
        'echo "srun $*" >> $LOG; while [[ $1 == --* ]]; do shift; done; exec "$@"'  # as if there
    ),
    "hostname": "echo 10.0.0.1",
    "ray": (
        "[[ $1 == start ]] && trap 'echo \"ray ended\" >> $LOG; exit 0' TERM\n"
        'echo "ray $*" >> $LOG; [[ $1 == start ]] || exit 0\n'
        "while :; do sleep 0.05; done"
    ),
    "climlstm": (
        "trap 'exit 0' TERM\n"
        'echo "climlstm $*; $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> $LOG\n'
        "until (( $(grep -c '^ray start' $LOG) == 2 )); do sleep 0.05; done\n"
        'if [[ $BEHAVIOUR == hang ]]; then while :; do sleep 0.05; done; fi; exit "$BEHAVIOUR"'
    ),
}


@pytest.fixture
def slurm_script(tmp_path):
    """Start the Slurm script among stand-ins; gives the process and the file of their notes."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    started = []

    def start(behaviour):
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "LOG": str(log),
            "BEHAVIOUR": str(behaviour),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_CPUS_PER_TASK": "8",
            "SLURM_GPUS_ON_NODE": "4",
        }
        process = subprocess.Popen(
            ["bash", CLUSTER / "slurm.sh", "run.yaml", "--set", "training.epochs=2"],
            env=environment,
        )
        started.append(process)
        return process, log

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("status", [0, 1])
def test_the_slurm_script_starts_ray_on_each_host_trains_and_ends_it(slurm_script, status):
    process, log = slurm_script(status)
    assert process.wait(20) == status
    notes = log.read_text()
    starts = re.findall(r"^ray start .*", notes, re.MULTILINE)
    head, worker = sorted(starts, key=lambda start: "--head" not in start)
    assert "--head --node-ip-address=10.0.0.1 --port=24711" in head
    assert "--address=10.0.0.1:24711" in worker
    assert all("--num-cpus=8 --num-gpus=4" in start for start in (head, worker))
    assert sorted(re.findall(r"--nodelist=(\S+)", notes)) == ["n1", "n1", "n2"]
    assert (
        "climlstm train run.yaml --address 10.0.0.1:24711 --resume --set training.epochs=2; "
        "token 64" in notes
    )
    assert notes.count("ray ended") == 2


def test_the_slurm_script_asks_to_be_queued_again_before_its_time_is_over(slurm_script):
    process, log = slurm_script("hang")
    while "climlstm" not in log.read_text() or log.read_text().count("ray start") < 2 * 2:
        assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 0
    assert "scontrol requeue 4711" in log.read_text()
    assert log.read_text().count("ray ended") == 2


def test_the_readme_names_commands_that_exist():
    from typer.main import get_command

    commands = get_command(cli.app)
    text = (CLUSTER / "README.md").read_text()
    named = set(re.findall(r"`?climlstm ([a-z]+)", text)) - {"under"}
    assert {"submit", "jobs"} <= named
    assert all(commands.get_command(None, name) is not None for name in named)
