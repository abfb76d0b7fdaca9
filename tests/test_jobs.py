"""Runs as jobs: what is packed for a cluster, and what a user hears where none answers."""

import zipfile

import pytest

pytest.importorskip("ray", reason="needs climlstm[ray]")

from climlstm.config import load_config
from climlstm.errors import ConfigError, TrainingError
from climlstm.training import jobs


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
        monkeypatch.setattr(jobs, "_wait_for_head", lambda address, seconds: None)

    def start(self, config, *, address, ship):
        self.submitted += 1
        return f"job-{self.submitted}"

    def follow(self, address, job, say):
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
