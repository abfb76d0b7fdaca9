"""Runs as jobs: what is packed for a cluster, and what a user hears where none answers."""

import re
import types
import zipfile

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm.config import load_config
from climlstm.errors import ConfigError, TrainingError
from climlstm.on_ray import jobs


def test_a_catalog_with_data_beside_it_stays_where_it_is(small_run, tmp_path):
    config = small_run()
    jobs.pack(config, tmp_path, [])
    packed = load_config(tmp_path / "run.yaml")
    assert packed.data.catalog == config.data.catalog
    assert packed.cluster.storage == config.cluster.storage
    assert packed.training == config.training


def test_a_catalog_of_other_places_is_packed(small_run, tmp_path):
    catalog = tmp_path / "far.yaml"
    catalog.write_text("sources: {far: {driver: zarr, args: {urlpath: 's3://bucket/far.zarr'}}}\n")
    folder = tmp_path / "job"
    folder.mkdir()
    jobs.pack(small_run(f"data.catalog={catalog}"), folder, [])
    packed = load_config(folder / "run.yaml")
    assert packed.data.catalog == str(folder / "catalog.yaml")
    assert (folder / "catalog.yaml").read_text() == catalog.read_text()


def test_code_is_packed_such_that_python_finds_it_beside_the_run(small_run, tmp_path):
    wheel = tmp_path / "plug-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("plug.py", "")
        file.writestr("plug-1.0.dist-info/entry_points.txt", "[climlstm.losses]\n")
    package = tmp_path / "own"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").touch()
    folder = tmp_path / "job"
    folder.mkdir()
    jobs.pack(small_run(), folder, [wheel, package])
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {"plug.py", "plug-1.0.dist-info/entry_points.txt", "own/__init__.py"} <= names
    assert "own/__pycache__" not in names
    with pytest.raises(ConfigError, match="expected a wheel"):
        jobs.pack(small_run(), folder, [tmp_path / "run.yaml"])


@pytest.mark.parametrize(
    ("address", "says"),
    [("10.0.0.1:6379", "expected that of the dashboard"), ("http://127.0.0.1:1", "tunnel")],
)
def test_no_dashboard_at_the_address(small_run, address, says):
    with pytest.raises(ConfigError, match=says):
        jobs.start_job(small_run(), address=address)


class Endings:
    """A cluster whose jobs end as told: 'lost', 'failed' or 'well'."""

    def __init__(self, monkeypatch, *endings):
        self.left = list(endings)
        self.submitted = 0
        monkeypatch.setattr(jobs, "start_job", self.start)
        monkeypatch.setattr(jobs, "_follow_to_the_end", self.follow)

    def start(self, config, *, address, ship):
        self.submitted += 1
        return f"job-{self.submitted}"

    def follow(self, address, job, say, wait_for_head_s):
        return {"lost": "The head is gone", "well": None}[self.left.pop(0)]


def test_a_run_whose_head_is_lost_is_submitted_again(monkeypatch, small_run):
    cluster = Endings(monkeypatch, "lost", "lost", "well")
    said = []
    job = jobs.submit_run(small_run(), address="http://head:8265", retries=2, say=said.append)
    assert job == "job-3"
    assert "1 tries left" in "".join(said)
    assert cluster.left == []


def test_tries_are_bounded(monkeypatch, small_run):
    cluster = Endings(monkeypatch, *["lost"] * 9)
    with pytest.raises(TrainingError, match=r"lost 3 times.*The head is gone"):
        jobs.submit_run(small_run(), address="http://head:8265", retries=2, say=lambda text: None)
    assert cluster.submitted == 3


class Head:
    """A head that answers as told each time: 'silent', or with the status of its job."""

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        self.said = []
        monkeypatch.setattr(jobs, "SECONDS_BETWEEN_LOOKS", 0)
        monkeypatch.setattr(jobs, "_client", lambda address: self)
        monkeypatch.setattr(jobs, "_reach", lambda address: None)

    def get_job_logs(self, job):
        return ""

    def get_version(self):
        if self.answers[0] == "silent":
            self.answers.pop(0)
            raise ConnectionError("timed out")

    def get_job_info(self, job):
        answer = self.answers[0]
        if answer == "silent":
            raise ConnectionError("timed out")
        self.answers.pop(0)
        if answer == "knows nothing":
            raise RuntimeError(f"Job {job} does not exist")
        return types.SimpleNamespace(status=answer, driver_exit_code=-9, message="killed")

    def end(self, seconds=60):
        return jobs._follow_to_the_end("http://head:8265", "job-1", self.said.append, seconds)


def test_a_job_that_ran_on_while_the_way_to_its_head_was_broken_is_not_submitted_twice(monkeypatch):
    head = Head(monkeypatch, "RUNNING", "silent", "silent", "RUNNING", "SUCCEEDED")
    assert head.end() is None
    assert "no longer answers" in "".join(head.said)


@pytest.mark.parametrize(
    ("answers", "ending"),
    [
        (["silent", "knows nothing"], "another one and knows no job"),
        (["RUNNING", "FAILED"], r"driver of job job-1 was lost \(killed"),
    ],
)
def test_a_lost_head_or_driver_is_worth_another_submission(monkeypatch, answers, ending):
    assert re.search(ending, Head(monkeypatch, *answers).end())


def test_a_head_that_does_not_come_back_is_not_waited_for_without_end(monkeypatch):
    with pytest.raises(TrainingError, match="has not come back"):
        Head(monkeypatch, *["silent"] * 3).end(seconds=0)


def test_a_log_that_broke_off_goes_on_where_it_was(monkeypatch):
    """The server sends it from its beginning each time."""
    head = Head(monkeypatch, "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED")
    logs = iter(["first ", ConnectionError(), "first line\n", "first line\nsecond line\n"])

    def log(job):
        found = next(logs)
        if isinstance(found, Exception):
            raise found
        return found

    head.get_job_logs = log
    assert head.end() is None
    said = [text for text in head.said if "no longer answers" not in text]
    assert "".join(said) == "first line\nsecond line\n"
