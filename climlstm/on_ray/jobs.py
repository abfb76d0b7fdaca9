"""Runs as jobs of a Ray cluster: shipped, followed, and submitted anew where machines are lost.

A job's driver runs on the head and is lost with it. The command that submitted the job then waits
for the head to answer again and submits the run once more; it goes on from its last checkpoint.
"""

import logging
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from climlstm import plugins
from climlstm.config import Config, dump_config
from climlstm.errors import ConfigError, TrainingError, missing_extra

try:
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus, JobSubmissionClient
except ImportError as error:
    raise missing_extra("Jobs on a Ray cluster", "ray", error) from error

RUN_FILE = "run.yaml"
COMMAND = f"python -m climlstm train {RUN_FILE} --address auto --resume"

SECONDS_BETWEEN_LOOKS = 2.0
SHARE_OF_TIME = 0.05
"""Most of the time that fetching the log, which comes whole each time, may take."""
WAIT_FOR_HEAD_S = 600.0
"""Timeout for a head that no longer answers to come back."""
REACH_S = 10.0
"""Timeout for an answer of the head."""

MENDABLE = 1
"""Exit status of a driver that found something for the user to put right: no try would mend it."""

LOST = (ConnectionError, requests.ConnectionError, requests.Timeout, TimeoutError)
"""Errors of Ray's client where the head does not answer."""

logger = logging.getLogger(__name__)

for _noisy in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)  # they tell of packages and sockets


@dataclass(frozen=True)
class RayJob:
    """A job as `climlstm jobs list` shows it."""

    id: str
    run: str
    status: str
    started: float
    """Seconds since 1970; 0 before the start."""
    message: str


def submit_run(
    config: Config,
    *,
    address: str,
    ship: Sequence[Path] = (),
    retries: int = 3,
    say: Callable[[str], None],
    wait_for_head_s: float = WAIT_FOR_HEAD_S,
) -> str:
    """Train on a cluster, follow the log to the end, and return the id of the last job.

    address: of the dashboard, http://HEAD:8265.
    ship: wheels and folders of Python code (plugins) for driver and workers.
    retries: new submissions after the driver or the head was lost.
    say: called with pieces of the log and of messages.
    Raises ConfigError where nothing answers at the address or the cluster refuses the job,
    TrainingError where the job fails.
    """
    for left in reversed(range(retries + 1)):
        job = start_job(config, address=address, ship=ship)
        say(f"job {job} at {address}\n")
        ending = _follow_to_the_end(address, job, say, wait_for_head_s)
        if ending is None:
            return job
        if not left:
            break
        say(f"{ending}. Submitting the run again from its last checkpoint; {left} tries left.\n")
    raise TrainingError(
        f"The run '{config.name}' was lost {retries + 1} times, at last as job {job}: {ending}. "
        f"Once the cluster is well, submit it again: it goes on from its last checkpoint."
    )


def start_job(config: Config, *, address: str, ship: Sequence[Path] = ()) -> str:
    """Send a run and its code to a cluster, and return the id of the job."""
    with tempfile.TemporaryDirectory(prefix="climlstm-job-") as folder:
        pack(config, Path(folder), ship)
        with _answering(address):
            client = _client(address)
            number = 1 + sum(
                job.metadata is not None and job.metadata.get("run") == config.name
                for job in client.list_jobs()
            )
            return client.submit_job(
                entrypoint=COMMAND,
                submission_id=f"{config.name}-{number}-{int(time.time()):x}",
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"},
                },
                metadata={"run": config.name},
            )


def pack(config: Config, folder: Path, ship: Sequence[Path]) -> None:
    """Fill a job's working directory: run file, catalog, code.

    Paths of the run keep their meaning here, so that data and checkpoints on a disk that all
    hosts share are found. A local catalog is packed, so that it need not lie on such a disk,
    unless its data lie beside it (it says CATALOG_DIR). A wheel is unpacked: its metadata, by
    which plugins are found, are then found on the workers too, and nothing is installed there.
    """
    catalog = Path(config.data.catalog)
    if "://" not in config.data.catalog and not _has_data_beside(catalog):
        shutil.copy(catalog, folder / "catalog.yaml")
        data = config.data.model_copy(update={"catalog": "catalog.yaml"})
        config = config.model_copy(update={"data": data})
    (folder / RUN_FILE).write_text(dump_config(config), encoding="utf-8")
    for path in (*ship, *plugins.modules_beside()):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(folder)
        elif path.is_dir():
            skip = shutil.ignore_patterns("__pycache__", ".git", ".venv")
            shutil.copytree(path, folder / path.resolve().name, ignore=skip)
        elif path.suffix == ".py":
            shutil.copy(path, folder)
        else:
            raise ConfigError(
                f"--ship {path}: expected a wheel, a module (.py) or the folder of a package."
            )


def list_jobs(address: str) -> list[RayJob]:
    """All jobs that the cluster remembers, oldest first."""
    with _answering(address):
        details = _client(address).list_jobs()
    jobs = [
        RayJob(
            id=d.submission_id or d.job_id or "",
            run=(d.metadata or {}).get("run", ""),
            status=str(d.status),
            started=(d.start_time or 0) / 1000,
            message=d.message or "",
        )
        for d in details
    ]
    return sorted(jobs, key=lambda job: job.started)


def job_log(address: str, job: str) -> str:
    """The log of a job so far. Raises ConfigError where the cluster knows no such job."""
    with _answering(address):
        return _client(address).get_job_logs(job)


def stop_job(address: str, job: str) -> bool:
    """Stop a job; whether it was running. Raises ConfigError for a job that nobody knows."""
    with _answering(address):
        return _client(address).stop_job(job)


def _follow_to_the_end(
    address: str, job: str, say: Callable[[str], None], wait_for_head_s: float
) -> str | None:
    """None after success; how driver or head were lost, where it is worth trying again.

    A head that no longer answers is waited for: if only the way to it was broken, the job runs on.
    Raises TrainingError where trying again is not worth it, or the head does not come back.
    """
    shown = 0
    while True:
        began = time.monotonic()
        try:
            _reach(address)
            details = _client(address).get_job_info(job)
            log = _client(address).get_job_logs(job)
        except LOST as error:
            say(f"The head at {address} no longer answers ({_root(error)}). Waiting for it.\n")
            _wait_for_head(address, wait_for_head_s)
            continue
        except RuntimeError as error:  # Ray's client, for everything that the server answers
            if "does not exist" in str(error):
                return f"The head at {address} is another one and knows no job {job}"
            logger.info("the head does not say how %s stands: %s", job, error)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        if len(log) > shown:
            say(log[shown:])
            shown = len(log)
        if details.status == JobStatus.SUCCEEDED:
            return None
        if details.status == JobStatus.STOPPED:
            raise TrainingError(f"The job {job} was stopped. Submit the run again to go on.")
        if details.status == JobStatus.FAILED:
            if details.driver_exit_code == MENDABLE:
                raise TrainingError(f"The job {job} failed; its log above says why.")
            return f"The driver of job {job} was lost ({_first_line(details.message)})"
        time.sleep(max(SECONDS_BETWEEN_LOOKS, (time.monotonic() - began) / SHARE_OF_TIME))


def _reach(address: str) -> None:
    """Raises one of LOST where nobody answers; Ray's own client would wait for minutes."""
    requests.get(f"{address}/api/version", timeout=REACH_S)


def _wait_for_head(address: str, seconds: float) -> None:
    """Raises TrainingError where the head does not come back in time."""
    until = time.monotonic() + seconds
    while True:
        try:
            _reach(address)
            _client(address).get_version()
            return
        except (*LOST, RuntimeError) as error:
            if time.monotonic() > until:
                raise TrainingError(
                    f"The head at {address} has not come back for {seconds:.0f} s: {_root(error)}. "
                    "Start the cluster again and submit the run again: it goes on from its last "
                    "checkpoint."
                ) from error
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _client(address: str) -> JobSubmissionClient:
    return JobSubmissionClient(address)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Turns errors of Ray's client into a ConfigError that says what to do."""
    if not re.match(r"https?://[^/]+", address):
        raise ConfigError(
            f"--address {address}: expected that of the dashboard, such as http://HEAD:8265."
        )
    try:
        yield
    except LOST as error:
        raise ConfigError(
            f"No Ray dashboard answers at {address}: {_root(error)}. Open a tunnel to the head "
            "with 'ssh -L 8265:localhost:8265 HEAD', and give http://localhost:8265."
        ) from error
    except AuthenticationError as error:
        raise ConfigError(
            f"The cluster at {address} wants another token: {_first_line(str(error))}. "
            "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        ) from error
    except RuntimeError as error:
        raise ConfigError(
            f"The cluster at {address} refused: {_first_line(str(error))}. "
            "'climlstm jobs list' names the jobs that it knows."
        ) from error


def _has_data_beside(catalog: Path) -> bool:
    try:
        return "CATALOG_DIR" in catalog.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The catalog '{catalog}' cannot be read: {error}.") from error


def _root(error: BaseException) -> str:
    """Message of the first cause, which the clients of HTTP wrap in words of their own."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__


def _first_line(text: str | None) -> str:
    return (text or "no reason given").strip().splitlines()[0].rstrip(".")
