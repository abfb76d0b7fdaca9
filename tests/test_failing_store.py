"""Training from an S3-compatible store that drops, slows and errors in mid-epoch."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import pytest
import torch

pytest.importorskip("s3fs", reason="needs climlstm[cloud]")

from climlstm.data.run_data import RunData
from climlstm.data.windows.blocks import BlockReader, Scaling
from climlstm.errors import ClimLSTMError, DataError
from climlstm.model.saving import read_forecaster
from climlstm.training import checkpoint
from climlstm.training.loop import prepare_training, run_training
from climlstm.training.storage import FolderStorage, run_folder

Fault = Callable[[str], str | None]
"""What goes wrong with a request for an object: '503', '500', 'drop', 'cut', 'slow' or nothing."""


def sometimes(share: float, *faults: str, seed: int = 0) -> Fault:
    """Each of the faults alike, in that share of the requests."""
    rng, lock = random.Random(seed), threading.Lock()

    def fault(key: str) -> str | None:
        with lock:
            return rng.choice(faults) if rng.random() < share else None

    return fault


class FailingStore:
    """Serves a folder as the bucket 'bucket'; `fault` may be changed while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: Fault = lambda key: None
        self.slow_s = 0.5
        self.happened: Counter[str] = Counter()
        """What was answered, counted."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def catalog(self, path: Path, store: str, *, secret: str = "any") -> Path:
        """Write a catalog with the source 'atmosphere', a store of the folder."""
        path.write_text(
            f"sources:\n  atmosphere:\n    driver: zarr\n    args:\n"
            f"      urlpath: s3://bucket/{store}\n"
            f"      storage_options: {{key: any, secret: {secret}, client_kwargs: "
            f"{{endpoint_url: '{self.address}', region_name: here}}}}\n"
        )
        return path

    def _handler(store: "FailingStore") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                address = urlsplit(self.path)
                key = unquote(address.path).removeprefix("/bucket").strip("/")
                if "list-type" in address.query:
                    self._answer(200, store.listing(parse_qs(address.query)), "application/xml")
                    return
                fault = store.fault(key)
                store.happened[fault or "answered"] += 1
                if fault == "drop":
                    self.close_connection = True
                    return
                if fault == "slow":
                    time.sleep(store.slow_s)
                if fault in ("500", "503"):
                    code = {"500": "InternalError", "503": "SlowDown"}[fault]
                    self._answer(int(fault), _error(code), "application/xml")
                    return
                path = store.folder / key
                if not path.is_file():
                    self._answer(404, _error("NoSuchKey"), "application/xml")
                    return
                self._answer(200, path.read_bytes(), "binary/octet-stream", cut=fault == "cut")

            do_HEAD = do_GET

            def _answer(self, status: int, body: bytes, kind: str, *, cut: bool = False) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
                self.send_header("ETag", '"1"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                self.close_connection = cut

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def listing(self, query: dict[str, list[str]]) -> bytes:
        """Answer of ListObjectsV2."""
        prefix = query.get("prefix", [""])[0]
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        names = [str(p.relative_to(self.folder)) for p in files]
        found = [n for n in names if n.startswith(prefix)][:1000]
        contents = "".join(
            f"<Contents><Key>{escape(n)}</Key><Size>{(self.folder / n).stat().st_size}</Size>"
            '<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>"1"</ETag></Contents>'
            for n in found
        )
        return (
            f'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><Prefix>{escape(prefix)}'
            f"</Prefix><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{contents}"
            "</ListBucketResult>"
        ).encode()


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>so</Message></Error>'.encode()


@contextmanager
def failing_store(folder: Path) -> Iterator[FailingStore]:
    """The server while the block runs."""
    store = FailingStore(folder)
    thread = threading.Thread(target=store.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.server.shutdown()
        store.server.server_close()


SETTINGS = ["training.epochs=1", "data.memory=10MiB", "training.validation_windows=4"]


@pytest.fixture
def store(weather):
    with failing_store(weather) as served:
        yield served


@pytest.fixture
def remote_run(store, small_run, tmp_path):
    """Makes the small run on the weather in the store; the cube does not fit into its memory."""
    catalog = store.catalog(tmp_path / "remote.yaml", "atmosphere.zarr")
    return lambda *overrides: small_run(f"data.catalog={catalog}", *SETTINGS, *overrides)


def weights(config):
    return read_forecaster(checkpoint.latest_checkpoint(run_folder(config)))[0].state_dict()


@pytest.mark.slow
def test_a_store_that_fails_now_and_then_changes_nothing(store, remote_run, small_run, capsys):
    local = small_run("name=local", *SETTINGS)
    run_training(local)
    config = remote_run("name=remote")
    with prepare_training(config, FolderStorage(run_folder(config))) as training:
        store.fault = sometimes(0.1, "503", "500", "drop", "cut", "slow")
        store.slow_s = 0.05
        training.run()
    for name, tensor in weights(config).items():
        assert torch.equal(tensor, weights(local)[name]), name
    assert min(store.happened[fault] for fault in ("503", "500", "drop", "cut", "slow")) > 0
    print(f"\n{dict(store.happened)}")


@pytest.mark.parametrize(
    ("more", "library"),
    [
        ("", "obstore"),
        (", config_kwargs: {connect_timeout: 3}", "obstore"),
        (", requester_pays: true", "zarr's own store"),  # which obstore would not know of
        (", config_kwargs: {max_pool_connections: 7}", "zarr's own store"),
    ],
)
def test_objects_are_fetched_by_obstore_where_it_knows_all_options(
    store, small_run, tmp_path, more, library
):
    pytest.importorskip("obstore", reason="needs climlstm[cloud]")
    catalog = store.catalog(tmp_path / "remote.yaml", "atmosphere.zarr")
    catalog.write_text(catalog.read_text().replace("}}\n", "}" + more + "}\n"))
    remote, local = (
        RunData(small_run(*overrides)).plan for overrides in ([f"data.catalog={catalog}"], [])
    )
    channels = tuple(recipe.channel.name for recipe in remote.recipes[:2])
    steps = np.arange(0, 40, 3)
    read = []
    for plan in (remote, local):
        scaling = Scaling(np.zeros(2), np.ones(2))
        reader = BlockReader(plan, channels, scaling)
        read.append(np.empty((steps.size, *reader.shape), "float32"))
        reader.read(steps, read[-1])
        if plan is remote:
            assert reader.describe() == f"chunks decoded by zarrs, fetched ahead by {library}"
        reader.close()
    np.testing.assert_array_equal(*read)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "drop", "cut"])
def test_a_store_that_fails_for_good_ends_the_run_with_a_checkpoint(
    store, remote_run, small_run, monkeypatch, fault
):
    monkeypatch.setattr("climlstm.data.store.remote.PAUSE", 0.01)
    config = remote_run("name=remote")
    with prepare_training(config, FolderStorage(run_folder(config))) as training:
        learn = training.learner.learn

        def learn_until_it_fails(*arguments, **options):
            if options["step"] == 9:
                store.fault = lambda key: fault
            return learn(*arguments, **options)

        monkeypatch.setattr(training.learner, "learn", learn_until_it_fails)
        began = time.monotonic()
        with pytest.raises(DataError, match=r"cannot be read.*Check the network"):
            training.run()
        print(f"\n{fault}: ended after {time.monotonic() - began:.0f} s, {dict(store.happened)}")
    latest = checkpoint.latest_checkpoint(run_folder(config))
    assert checkpoint.read_standing(latest).position.step >= 10

    store.fault = lambda key: None  # mended: it goes on as if nothing had been
    run_training(config, resume_from=latest)
    unbroken = remote_run("name=unbroken")
    run_training(unbroken)
    for name, tensor in weights(config).items():
        assert torch.equal(tensor, weights(unbroken)[name]), name


@pytest.mark.slow
def test_a_store_that_is_down_from_the_start_is_one_clear_error(store, remote_run):
    config = remote_run()
    store.fault = lambda key: "500"
    with pytest.raises(ClimLSTMError, match=r"cannot be (opened|read)"):
        run_training(config)
    assert not list(run_folder(config).glob("*"))
