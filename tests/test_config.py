"""The run file: what it accepts, and what it says of mistakes."""

import pandas as pd
import pytest
import yaml

from climlstm.config import (
    ClusterConfig,
    PluginChoice,
    dump_config,
    load_config,
    parse_config,
)
from climlstm.errors import ConfigError
from climlstm.steps import Step

RUN = """
name: europe
data:
  catalog: catalogs/era5.yaml
  source: era5_64x32
  step: 6h
  state: [t2m, msl]
  periods:
    train: [2001-01-01, 2001-12-31]
    valid: [2002-01-01, 2002-06-30]
    test: [2002-07-01, 2002-12-31]
"""


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def test_paths_are_relative_to_the_run_file(run_file):
    config = load_config(run_file)
    assert config.data.catalog == str(run_file.parent / "catalogs/era5.yaml")
    assert config.cluster.storage == str(run_file.parent / "runs")


def test_a_url_stays_as_it_is(run_file):
    config = load_config(run_file, ["cluster.storage=s3://bucket/runs"])
    assert config.cluster.storage == "s3://bucket/runs"


def test_dates_cover_whole_days(run_file):
    start, stop = load_config(run_file).data.periods.bounds("train")
    assert start == pd.Timestamp("2001-01-01T00:00")
    assert pd.Timestamp("2001-12-31T23:59") < stop < pd.Timestamp("2002-01-01")


def test_a_dumped_run_is_read_back_the_same(run_file, tmp_path):
    config = load_config(run_file, ["model.options.hidden=[32, 32]"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config


def test_a_retired_key_is_refused_in_a_run_file(run_file):
    with pytest.raises(ConfigError, match=r"'training\.cuda_graph' is gone .*Remove the line"):
        load_config(run_file, ["training.cuda_graph=false"])


def test_a_retired_key_is_passed_over_in_a_checkpoint(run_file):
    content = yaml.safe_load(RUN) | {"training": {"cuda_graph": False, "epochs": 3}}
    config = parse_config(content, where="checkpoint", stored=True)
    assert config.training.epochs == 3
    run_file.write_text(yaml.safe_dump(content))
    (run_file.parent / "forecaster.json").touch()  # it lies in a checkpoint
    assert load_config(run_file).training == config.training


def test_overrides_are_yaml(run_file):
    config = load_config(run_file, ["training.epochs=3", "model.options.hidden=[8]"])
    assert config.training.epochs == 3
    assert config.model.options == {"hidden": [8]}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainig.epochs=2", "Did you mean 'training'?"),
        ("training.epoch=2", "Did you mean 'epochs'?"),
        ("training.epochs=0", "'training.epochs' is 0"),
        ("training.epochs=many", "'training.epochs' is 'many'"),
        ("data.step=6", "such as '6h'"),
        ("data.step=-6h", "such as '6h'"),
        ("data.state=[]", "'data.state' is []"),
        ("data.state=[t2m, t2m]", "named more than once: t2m"),
        ("data.periods.valid=[2001-06-01, 2002-06-30]", "overlap"),
        ("data.periods.valid=[2002-06-30, 2002-01-01]", "before it starts"),
        ("data.periods.valid=[2002-02-31, 2002-06-30]", "expected a date"),
        ("data.region={latitude: [75, 100], longitude: [0, 10]}", "not within -90..90"),
        ("model.name=convlstmm", "Did you mean 'convlstm'?"),
        ("model.options.hiden=[8]", "Did you mean 'hidden'?"),
        ("model.options.hidden=[-1]", "greater than or equal to 1"),
        ("training.loss.name=msee", "Did you mean 'mse'?"),
        ("name=../escape", "'name' is '../escape'"),
        ("epochs", "expected KEY=VALUE"),
        ("name.first=x", "is a value, not a section"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_remedy(run_file, override, says):
    with pytest.raises(ConfigError) as error:
        load_config(run_file, [override])
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "instead of sections"),
        ("- a\n- b\n", "instead of sections"),
        ("name: [", "not valid YAML"),
        ("name: x\n", "'data' is missing"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_run_file(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_config(path)


def test_a_missing_run_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no run file .*nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["6h", "30min", "1d12h", "1d", "1h30min"])
def test_durations_are_written_as_they_are_read(run_file, text):
    assert str(load_config(run_file, [f"data.step={text}"]).data.step) == text
    assert f"step: {text}\n" in dump_config(load_config(run_file, [f"data.step={text}"]))


@pytest.mark.parametrize("text", ["1 month", "MS", "1MS", "P1M"])
def test_months_are_no_milliseconds_and_no_minutes(run_file, text):
    config = load_config(run_file, [f"data.step={text}"])
    assert config.data.step == Step(months=1)
    assert "step: 1 month\n" in dump_config(config)
    with pytest.raises(ConfigError, match="expected a duration, such as '6h' or '1d', not months"):
        load_config(run_file, [f"cluster.timeout={text}"])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("800MB", 8 * 10**8),
        ("1.5 gib", 3 * 2**29),
        ("1000", 1000),
        ("2k", 2000),
    ],
)
def test_sizes_are_bytes(run_file, text, size):
    assert load_config(run_file, [f"data.memory={text}"]).data.memory == size


@pytest.mark.parametrize("text", ["much", "4 GiBs", "-1GB", "1.2.3GB", "true"])
def test_other_sizes_are_refused(run_file, text):
    with pytest.raises(ConfigError, match=r"'data.memory' is .* such as '4GiB'"):
        load_config(run_file, [f"data.memory={text}"])


def test_a_cache_lies_beside_the_run_file_or_where_it_says(run_file):
    config = load_config(run_file, ["data.cache={folder: kept, size: 30GB}"])
    assert config.data.cache.folder == str(run_file.parent / "kept")
    assert config.data.cache.size == 30 * 10**9
    config = load_config(run_file, ["data.cache={folder: /scratch/kept}"])
    assert config.data.cache.folder == "/scratch/kept"


def test_workers_are_a_number_or_a_range():
    assert ClusterConfig(workers=3).workers == 3
    assert ClusterConfig(workers=[2, 8]).workers == (2, 8)
    for wrong in (0, [8, 2], [2], "many"):
        with pytest.raises(ValueError, match=r"or a range such as \[2, 8\]"):
            ClusterConfig(workers=wrong)


def test_a_choice_of_a_plugin_on_a_command_line_is_a_name_or_as_in_a_run_file():
    assert PluginChoice.parse("rmse") == PluginChoice(name="rmse")
    chosen = PluginChoice.parse("{name: storms, options: {preset: tropical}}")
    assert (chosen.label, chosen.options) == ("storms", {"preset": "tropical"})
    assert PluginChoice.parse("climlstm-storms:storms").label == "storms"
    for wrong in ("{nme: rmse}", "{name: rmse", "{}"):
        with pytest.raises(ConfigError, match="no choice of a plugin"):
            PluginChoice.parse(wrong)


def test_two_evaluators_of_one_name_would_overwrite_each_other(run_file):
    twice = "evaluation.evaluators=[{name: rmse}, {name: 'climlstm:rmse'}]"
    with pytest.raises(ConfigError, match="named more than once: rmse"):
        load_config(run_file, [twice])
