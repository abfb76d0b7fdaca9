"""Secrets reach no run file, checkpoint, forecast, record, log or message."""

import logging

import pytest

from climlstm import runs
from climlstm.cli.commands import Discreet
from climlstm.config import load_config
from climlstm.config.secrets import redact, secret_in
from climlstm.data.sources.catalog import open_source
from climlstm.errors import CatalogError, ConfigError
from climlstm.runs import find_trained, parse_times

SECRET = "hunter2-tr0ub4dor"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://me:{SECRET}@bucket/runs",
        f"https://{SECRET}@host/catalog.yaml",
        f"403, url='https://host/x.zarr/zarr.json?X-Amz-Signature={SECRET}&part=1'",
        f"https://store.blob/x?sv=1&sig={SECRET}",
        f"{{'key': 'me', 'secret': '{SECRET}'}}",
        f'{{"aws_secret_access_key": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"token={SECRET}, anon=False",
        f"password: {SECRET}",
        f"storage_options={{'token': '{SECRET}'}}",
    ],
)
def test_a_secret_is_hidden_and_the_rest_is_left(text):
    told = redact(text)
    assert SECRET not in told
    assert "***" in told
    assert redact(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "Channel 't2m' is in 'degC', but climlstm keeps it in 'K': correct the units.",
        "s3://bucket/runs/europe/step-000000100",
        "https://host/x.zarr?level=500&time=1",
        "2001-01-01 00:00:00 to 2001-02-15 18:00:00",
        "me@example.org has no key: the dictionary lacks it",
    ],
)
def test_other_texts_are_left_alone(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "setting",
    [
        f"data.catalog=https://me:{SECRET}@host/catalog.yaml",
        f"data.catalog=https://host/catalog.yaml?token={SECRET}",
        f"data.parameters.api_key={SECRET}",
        f"data.parameters.options={{secret: {SECRET}}}",
        f"data.prescribed={{sst: {{from: observed, source: x, parameters: {{token: {SECRET}}}}}}}",
        f"data.also=[{{source: x, parameters: {{token: {SECRET}}}}}]",
        f"cluster.storage=s3://me:{SECRET}@bucket/runs",
    ],
)
def test_a_run_file_with_a_secret_is_refused_without_repeating_it(run_file, setting):
    with pytest.raises(ConfigError, match=r"is a secret.*\{\{ env\(NAME\) \}\}") as error:
        load_config(run_file, [setting])
    assert SECRET not in str(error.value)
    assert not secret_in({"author": "me", "member": 3, "url": "https://host/x?level=5"})


@pytest.fixture
def secret_catalog(weather, tmp_path, monkeypatch):
    """The weather under storage options with a secret that comes from the environment."""
    monkeypatch.setenv("CLIMLSTM_TEST_SECRET", SECRET)
    path = tmp_path / "secret.yaml"
    options = '{token: "{{ env(CLIMLSTM_TEST_SECRET) }}"}'
    path.write_text(
        "sources:\n"
        f"  atmosphere: {{driver: zarr, args: {{urlpath: 'file://{weather}/atmosphere.zarr',"
        f" storage_options: {options}}}}}\n"
        "  elsewhere: {driver: zarr, args: {urlpath: "
        f"'https://me:{SECRET}@localhost:1/x.zarr?token={SECRET}'}}}}\n"
    )
    return path


def test_a_secret_of_a_catalog_reaches_nothing_that_a_run_leaves(
    small_run, secret_catalog, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG, "climlstm")
    config = small_run(f"data.catalog={secret_catalog}", "training.epochs=1")
    trained = find_trained(runs.train(config, under_ray=False))
    runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), steps=1)
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p != secret_catalog]
    assert len(left) > 20
    for path in left:
        assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_a_secret_in_an_address_reaches_no_message(secret_catalog):
    with pytest.raises(CatalogError, match="cannot be opened") as error:
        open_source(str(secret_catalog), "elsewhere")
    assert SECRET not in str(error.value)


def test_the_command_line_logs_no_secret():
    formatter = Discreet("%(message)s")
    record = logging.LogRecord("fsspec", 30, "", 0, "GET s3://me:%s@b", (SECRET,), None)
    assert SECRET not in formatter.format(record)
