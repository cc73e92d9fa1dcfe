"""A config is checked from its words alone, and says which word is wrong."""

import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from kdray.config import Config, Domain, TrainingConfig, changed, dump, explain, load, parse
from kdray.errors import ConfigError

CONFIGS = sorted(Path(__file__).parents[2].glob("jobs/configs/*.yaml"))


def tree(**parts) -> dict:
    return {"data": {"source": "rows.csv"}, "teacher": {"model": "folder"}, **parts}


def space(name: str, **domain) -> dict:
    return tree(search={"space": {name: domain}})


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("wrong, words", [
    (tree(trainnig={}), ["'trainnig'", "did you mean 'training'"]),
    (tree(training={"temprature": 2}), ["'training.temprature'", "did you mean 'training.temperature'"]),
    (tree(search={"space": {"alpha": {"mn": 0, "max": 1}}}), ["'search.space.alpha.mn'", "search.space.alpha.min"]),
    (tree(teacher={"model": "m", "finetune": {"epoch": 1}}), ["'teacher.finetune.epoch'", "teacher.finetune.epochs"]),
    (tree(cache={"zzz": 1}), ["'cache.zzz'", "known are rows_per_shard"]),
])
def test_an_unknown_key_names_the_nearest_known_one(wrong, words):
    with pytest.raises(ConfigError) as error:
        parse(wrong, "c.yaml")
    assert all(word in str(error.value) for word in ["c.yaml", *words])


@pytest.mark.parametrize("wrong, words", [
    ({"teacher": {"model": "m"}}, ["data is required"]),
    (tree(data={}), ["`source`", "`train`"]),
    (tree(data={"source": "a.csv", "columns": {"sentence": "s"}}), ["no column 'sentence'", "text, text_pair, label"]),
    (tree(task="translation"), ["unknown task 'translation'", "token-classification"]),
    (tree(training={"labels": {"zone": "!a"}}), ["training.labels.zone = '!a'"]),
    (tree(teacher={"model": "m", "labels": {"my zone": "a"}}), ["teacher.labels.my zone"]),
    (tree(training={"alpha": 1.5}), ["training.alpha = 1.5", "less than or equal to 1"]),
    (tree(training={"alpha": -0.1}), ["training.alpha"]),
    (tree(training={"alpha": float("nan")}), ["training.alpha"]),
    (tree(training={"temperature": 0}), ["training.temperature = 0", "greater than 0"]),
    (tree(training={"temperature": -1}), ["training.temperature = -1", "greater than 0"]),
    (tree(training={"alpha_end": 1.5}), ["training.alpha_end = 1.5", "less than or equal to 1"]),
    (tree(training={"temperature_end": 0}), ["training.temperature_end = 0", "greater than 0"]),
    (tree(training={"alpha_schedule": "step"}), ["training.alpha_schedule = 'step'", "linear"]),
    (tree(training={"alpha_schedule": "cosine"}), ["alpha_schedule cosine needs alpha_end"]),
    (tree(training={"temperature_schedule": "linear"}), ["temperature_schedule linear needs temperature_end"]),
    (tree(training={"loss": "mse", "temperature_end": 1}), ["temperature_end 1.0: loss mse has no temperature"]),
    (tree(training={"loss": "annealing", "temperature": 0.5}), ["temperature 0.5 must be 1 or more"]),
    (tree(training={"loss": "huber", "confidence": "temperature"}), ["needs loss kl, not huber"]),
    (tree(teacher={"model": "m", "live": True}, cache={"ensemble": ["ab"]}), ["cache.ensemble ['ab']", "teacher.live"]),
    *((tree(training=training, cache={"ensemble": ["ab"], "mean": "probabilities"}),
       ["training: cache.mean probabilities is taken at one temperature"])
      for training in ({"temperature_end": 1}, {"confidence": "temperature"}, {"loss": "annealing"})),
    (tree(search={"space": {"temperature_end": {"min": 1, "max": 2}}},
          cache={"ensemble": ["ab"], "mean": "probabilities"}), ["search.space.temperature_end: cache.mean"]),
    (space("alpha_end", min=0, max=2), ["search.space.alpha_end", "alpha_end = 2"]),
    (tree(training={"deepspeed": {"gradient_clipping": 2}}), ["training.deepspeed", "`clip`"]),
    (tree(training={"deepspeed": {"bf16": {"enabled": True}}}), ["`precision`"]),
    (tree(student={"layers": 2, "fresh": {}}), ["`layers`", "`fresh`", "not both"]),
    (tree(student={}), ["one of `layers`, `model`, `fresh`"]),
    (tree(student={"layers": 0}), ["at least one layer"]),
    (tree(student={"layers": []}), ["at least one layer"]),
    (tree(name="a/b"), ["name = 'a/b'"]),
    (tree(search={"algorithm": "grid", "space": {"alpha": {"min": 0, "max": 1}}}),
     ["search", "space.alpha is an interval", "grid needs `values`"]),
    (tree(search={"max_ms": 0}), ["search.max_ms"]),
    (tree(student={"layers": 2}, students={"a": {"layers": 1}}), ["either `student` or `students`"]),
    (tree(students={"a b": {"layers": 1}}), ["'a b' cannot be a student's name"]),
    (tree(students={"a": {"layers": 1, "fresh": {}}}), ["students.a", "not both"]),
    (tree(students={"a": {"layers": 1, "training": {"lrr": 1}}}), ["students.a.training.lrr", "did you mean 'lr'"]),
    (tree(search={"metric": "f1"}), ["no metric 'f1'", "accuracy, macro_f1, matthews"]),
    (tree(teacher={"model": "m", "actors": 2, "min_actors": 3}), ["min_actors 3 is more than actors 2"]),
    (tree(cache={"codec": "int4"}), ["cache.codec = 'int4'"]),
    (tree(cache={"ensemble": ["ab"], "weights": [1]}), ["weights [1.0] must be 2 numbers"]),
    (tree(cache={"ensemble": ["ab"], "weights": [1, -1]}), ["must be 0 or more"]),
    (tree(cache={"weights": [0]}), ["not all 0"]),
    (space("alpha", min=0, max=1.2), ["search.space.alpha", "alpha = 1.2"]),
    (space("seed", values=[0, 1]), ["search.space.seed: the best seed is chance", "search.seeds"]),
    *((space(name, values=[1, 2]), [f"search.space.{name}: it is how a student is trained", f"Set training.{name}"])
      for name in ("accumulation", "workers", "num_cpus", "num_gpus", "checkpoint_steps", "max_failures")),
    (space("labels.zone", values=["a", "b"]), ["search.space.labels.zone: it is how", "Set training.labels"]),
    (space("deepspeed.zero_optimization.stage", values=[1, 2]), ["it is how", "training.deepspeed.zero_optimization"]),
    (space("precision", values=["float32", "bfloat16"]), ["search.space.precision: it is the device's arithmetic"]),
    (space("patience", min=1, max=3), ["search.space.patience: who stops early can only miss a better epoch"]),
    (space("huber_delta", min=1, max=3), ["search.space.huber_delta: loss kl does not use it. Leave it out"]),
    (tree(training={"loss": "mse"}, search={"space": {"temperature": {"min": 1, "max": 3}}}),
     ["search.space.temperature: loss mse does not use it"]),
    (tree(search={"space": {"temperature": {"min": 1, "max": 3}, "loss": {"values": ["mse", ["huber"]]}}}),
     ["search.space.temperature: loss mse, ['huber'] does not use it"]),
    (tree(training={"alpha": 1}, search={"space": {"temperature": {"min": 1, "max": 3}}}),
     ["search.space.temperature: training.alpha is 1, so nothing is distilled"]),
    (tree(training={"alpha_schedule": "constant"}, search={"space": {"alpha_end": {"min": 0, "max": 1}}}),
     ["search.space.alpha_end: training.alpha_schedule is constant"]),
    (tree(students={"a": {"layers": 1, "training": {"loss": "mse"}}},
          search={"space": {"temperature_end": {"min": 1, "max": 2}}}), ["search.space.temperature_end"]),
    (space("alpha", values=[0.5, -1]), ["search.space.alpha", "alpha = -1"]),
    (space("temperature", min=0, max=4), ["search.space.temperature", "temperature = 0"]),
    (space("temperature", min=4, max=1), ["min 4.0 must be below max 1.0"]),
    (space("temperature", min=4), ["min and max, or values"]),
    (space("temperature", min=1, max=2, values=[1]), ["either min and max, or values"]),
    (space("temperature", values=[]), ["search.space.temperature.values"]),
    (space("lr", min=0, max=1, log=True), ["must be above 0"]),
    (space("batch_size", min=1.5, max=4), ["search.space.batch_size"]),
    (space("temprature", min=1, max=4), ["search.space.temprature", "did you mean 'temperature'"]),
    (space("finetune.epoch", min=1, max=4), ["search.space.finetune.epoch", "'finetune.epochs'"]),
    (space("loss", values=["kl", "kullback"]), ["search.space.loss", "kullback"]),
])
def test_a_wrong_value_is_refused_by_its_name(wrong, words):
    with pytest.raises(ConfigError) as error:
        parse(wrong, "c.yaml")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_columns_may_be_numbers_and_splits_beside_a_source_are_no_places():
    data = parse(tree(data={"source": "a.csv", "columns": {"text": 0}, "test": "b", "transfer": "c"}), "c.yaml").data
    assert data.columns == {"text": "0"} and data.places == {"source": "a.csv", "transfer": "c"}
    assert parse(tree(data={"train": "a", "test": "b"}), "c.yaml").data.places == {"train": "a", "test": "b"}


def test_modules_beside_a_config_are_found_behind_all_others(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "c.yaml").write_text("data: {source: a.csv}\nteacher: {model: m}\n")
    for _ in range(2):
        load(tmp_path / "c.yaml")
    assert sys.path.count(str(tmp_path)) == 1 and sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("training", [
    {"alpha_end": 1, "alpha_schedule": "constant"}, {"alpha_end": 0}, {"temperature_end": 1.5},
    {"loss": "annealing", "temperature_schedule": "cosine"}, {"loss": "mse", "confidence": "weight"}])
def test_a_schedule_is_allowed_where_it_says_something(training):
    config = parse(tree(training=training, cache={"ensemble": ["ab"]}), "c.yaml")
    assert {name: config.training.model_dump()[name] for name in training} == training


def test_every_other_setting_of_the_training_is_open_to_the_sweep():
    refused = {"accumulation", "workers", "num_cpus", "num_gpus", "labels", "checkpoint_steps", "max_failures", "seed",
               "precision", "patience"}
    values = {"finetune": [None], "deepspeed": [{}], "loss": ["kl", "huber"], "alpha_end": [0.1], "confidence": [None],
              "temperature_end": [2.0], "alpha_schedule": ["constant"], "temperature_schedule": ["constant"]}
    plain = TrainingConfig().model_dump()
    space = {name: {"values": values.get(name, [plain[name]])} for name in plain.keys() - refused}
    assert parse(tree(search={"space": space}), "c.yaml").search.searched(TrainingConfig()).keys() == space.keys()


def test_a_setting_that_one_of_several_students_feels_may_be_searched():
    students = {"a": {"layers": 1, "training": {"loss": "mse"}}, "b": {"layers": 1}}
    config = parse(tree(students=students, search={"space": {"temperature_end": {"min": 1, "max": 2}}}), "c.yaml")
    assert config.search.searched(TrainingConfig(loss="mse")) == {}


def test_a_loss_without_a_temperature_needs_no_space_of_its_own():
    assert parse(tree(training={"loss": "mse"}), "c.yaml").search.space is None


def test_an_ensemble_of_probabilities_is_allowed_at_one_temperature():
    cache = {"ensemble": ["ab"], "mean": "probabilities"}
    parse(tree(cache=cache, training={"alpha_end": 1, "temperature_end": 1, "temperature_schedule": "constant"}), "c")


@pytest.mark.parametrize("name, values", [("alpha_schedule", ["constant", "linear", "cosine"]),
                                          ("confidence", [None, "temperature", "weight"]),
                                          ("alpha_end", [None, 0.0, 1.0]), ("loss", ["kl", "annealing", "mse"])])
def test_schedules_are_open_to_the_sweep(name, values):
    wanted = tree(training={"alpha_end": 0.9}, search={"space": {name: {"values": values}}})
    assert parse(wanted, "c.yaml").search.space[name].values == values


@pytest.mark.parametrize("override, read, wanted", [
    ("training.lr=1e-4", lambda c: c.training.lr, 1e-4),
    ("training.finetune.epochs=2", lambda c: c.training.finetune.epochs, 2),
    ("student.layers=[0, 2]", lambda c: c.student.layers, [0, 2]),
    ("data.columns.text=a=b", lambda c: c.data.columns, {"text": "a=b"}),
    ("search.space.alpha={min: 0, max: 0.2}", lambda c: c.search.space["alpha"].max, 0.2),
    ("training.patience=null", lambda c: c.training.patience, None),
    ("training.deepspeed.zero_optimization.stage=2", lambda c: c.training.deepspeed["zero_optimization"]["stage"], 2),
])
def test_a_dotted_override_changes_one_field(tmp_path, override, read, wanted):
    path = written(tmp_path / "c.yaml", yaml.safe_dump(tree()))
    assert read(load(path, [override])) == wanted


@pytest.mark.parametrize("override, words", [
    ("training.lr", "must look like"),
    ("=3", "must look like"),
    ("data.source.path=x", "`source` is a single value"),
    ("training.lrr=1", "did you mean 'training.lr'"),
    ("training.lr=[", "not a YAML value"),
])
def test_a_wrong_override_is_refused(tmp_path, override, words):
    path = written(tmp_path / "c.yaml", yaml.safe_dump(tree()))
    with pytest.raises(ConfigError, match=r"override|single|mean") as error:
        load(path, [override])
    assert words in str(error.value)


@pytest.mark.parametrize("text, words", [
    ("", "must hold a mapping"),
    ("- a", "found list"),
    ("a: [", "is not YAML"),
    ("1: 2\ndata: {source: a}\nteacher: {model: m}", "keys should be strings"),
])
def test_a_file_that_is_no_config_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        load(written(tmp_path / "c.yaml", text))


@pytest.mark.parametrize("name", ["missing.yaml", ""])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="config file"):
        load(tmp_path / name)


def test_numbers_with_an_exponent_are_numbers_where_no_type_is_known(tmp_path):
    text = yaml.safe_dump(tree()) + "search: {space: {lr: {values: [1e-5, 3E+1, .5e-3, 1.0e-4]}}}\n"
    assert load(written(tmp_path / "c.yaml", text)).search.space["lr"].values == [1e-5, 30.0, 5e-4, 1e-4]


def test_every_field_has_a_description_and_appears_once():
    fields = list(explain())
    names = [name for name, _, _ in fields]
    assert len(set(names)) == len(names) > 70
    assert {"data.max_length", "training.alpha", "teacher.finetune", "teacher.finetune.lr"} <= set(names)
    assert [name for name, _, text in fields if not text.strip() or "\n" in text] == []
    assert ("teacher.model", "required") in [(name, default) for name, default, _ in fields]
    assert ("training.alpha", "0.5") in [(name, default) for name, default, _ in fields]


def test_a_domain_describes_its_fields_too():
    assert all(text for _, _, text in explain(Domain))


def test_the_tree_is_frozen():
    config = parse(tree(), "c.yaml")
    with pytest.raises(ValidationError):
        config.name = "other"
    with pytest.raises(ValidationError):
        config.training.lr = 1.0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_configs_load(path):
    assert load(path).training.lr > 0


def test_there_are_shipped_configs():
    assert CONFIGS


def test_a_dumped_config_loads_as_the_same(tmp_path):
    config = parse(tree(teacher={"model": "m", "finetune": {"lr": 1e-7}}, student={"fresh": {"hidden_size": 8}},
                        search={"space": {"lr": {"values": [1e-5, 2e-5]}, "alpha": {"min": 0, "max": 0.5}}},
                        name="run-1.b"), "c.yaml")
    assert load(written(tmp_path / "c.yaml", dump(config))) == config
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_storage_is_made_absolute_and_uris_stay(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parse(tree(storage="here"), "c").storage == str(tmp_path / "here")
    assert parse(tree(storage="s3://bucket/x/"), "c").storage == "s3://bucket/x"


def test_the_metric_that_picks_is_the_tasks_first_unless_named():
    assert parse(tree(), "c").metric == "accuracy"
    assert parse(tree(task="token-classification"), "c").metric == "f1"
    assert parse(tree(search={"metric": "matthews"}), "c").metric == "matthews"


def test_changed_gives_a_checked_copy():
    settings = TrainingConfig()
    assert changed(settings, {"alpha": 0.1, "finetune.lr": 1e-6}).finetune.lr == 1e-6
    assert settings.alpha == 0.5 and settings.finetune is None
    with pytest.raises(ConfigError, match="alpha = 2"):
        changed(settings, {"alpha": 2})
