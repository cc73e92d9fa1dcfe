"""A run trains, keeps its best, stops when it should, and after a fault goes on as if there had been none."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from kdray.config import TrainingConfig
from kdray.errors import TrainingError
from kdray.models.forward import predict
from kdray.models.load import Origin, load_model
from kdray.storage import Store
from kdray.tasks.base import scores_of
from kdray.training.health import warning_of
from kdray.training.job import Live, TrainingJob
from kdray.training.loop import run_in_process
from tests.unit.conftest import make_cache

CUT = {"layers": (0, 3)}
FAR = {"fresh": {"initializer_range": 0.5}}
"""A student that is far from its teacher, so that there is something to distil."""


class Interrupted(Exception):
    """What ends a run here."""


class Quiet:
    def advance(self, count: int, **facts: float) -> None: ...

    def close(self) -> None: ...


class Here:
    """This process: keeps what is reported, and may be interrupted after some reports."""

    rank, workers = 0, 1

    def __init__(self, folder: Path, stop_after: int | None = None):
        self.folder, self.stop_after = folder, stop_after
        self.reports: list[dict[str, Any]] = []
        self.labels: list[tuple[str, int, int]] = []

    def restore(self) -> Path | None:
        return self.folder if self.folder.exists() else None

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        self.reports.append(metrics)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(checkpoint, self.folder)
        if len(self.reports) == self.stop_after:
            raise Interrupted

    def progress(self, label: str, total: int, done: int) -> Quiet:
        self.labels.append((label, total, done))
        return Quiet()


@pytest.fixture
def job(corpus, cache, tmp_path):
    """Makes a job whose storage is a copy of the corpus's, so that no test finds another's student."""

    def make(origin: dict | None = None, copy: str = "store", **settings) -> TrainingJob:
        storage = tmp_path / copy
        if not storage.exists():
            shutil.copytree(corpus.store.root, storage)
        chosen = TrainingConfig(**{"epochs": 2, "lr": 1e-3, "batch_size": 32, "seed": 3, **settings})
        return TrainingJob("students", str(storage), corpus.task.name, tuple(corpus.labels), corpus.manifest["key"],
                           cache["key"], Origin(str(corpus.model), **(CUT if origin is None else origin)),
                           "fingerprint", str(corpus.model), corpus.manifest["pad_token_id"], "accuracy",
                           chosen.model_dump(), "float32")

    return make


@pytest.fixture
def here(tmp_path):
    return Here(tmp_path / "checkpoint")


def weights(job: TrainingJob, made: dict) -> dict[str, np.ndarray]:
    return load_file(Store(job.storage).fetch("students", made["key"]) / "model.safetensors")


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def scores(made: dict) -> list[dict]:
    """The history, without the means over the steps that this process took."""
    return [{name: value for name, value in entry.items() if name not in ("loss", "ratio")}
            for entry in made["history"]]


def test_a_student_learns_and_its_manifest_says_what_it_was_made_from(job, here, corpus, cache):
    wanted = job(epochs=8, lr=5e-3, batch_size=16, alpha=1.0, dropout=0)
    made = run_in_process(wanted, here)
    losses = [entry["loss"] for entry in made["history"]]
    assert len(losses) == 8 and losses[-1] < losses[0] / 2
    assert made["validation"]["accuracy"] == max(entry["accuracy"] for entry in made["history"]) >= 0.8
    assert made["key"] == wanted.key and made["settings"] == wanted.settings
    assert made["parents"] == {"corpus": corpus.manifest["key"], "cache": cache["key"], "origin": "fingerprint"}
    assert [report["epoch"] for report in here.reports] == list(range(1, 9))
    assert here.labels[0] == ("epoch 1/8", len(corpus.rows("train")), 0)
    assert Store(wanted.storage).names("students") == [wanted.key]


def test_the_published_student_has_the_validation_scores_of_its_manifest(job, here, corpus):
    wanted = job(epochs=3, lr=5e-3)
    made = run_in_process(wanted, here)
    model = load_model(corpus.task, Store(wanted.storage).fetch("students", made["key"]), corpus.labels).eval()
    rows = corpus.rows("validation")
    logits = predict(model, corpus.task, rows, np.arange(len(rows)), 0, 1024)
    decided = [part.argmax(-1) for part in logits]
    assert scores_of(corpus.task, rows.gold(), decided, corpus.labels) == made["validation"]


def test_a_student_that_is_there_is_not_trained_again(job, here):
    wanted = job(epochs=1)
    made = run_in_process(wanted, here)
    assert run_in_process(wanted, again := Here(here.folder)) == made
    assert again.reports == []


def test_two_runs_are_bit_equal_and_another_seed_is_not(job, tmp_path):
    found = []
    for copy, seed in (("a", 0), ("b", 0), ("c", 1)):
        wanted = job(copy=copy, epochs=1, seed=seed)
        found.append(weights(wanted, run_in_process(wanted, Here(tmp_path / f"{copy}-checkpoint"))))
    assert equal(found[0], found[1]) and not equal(found[0], found[2])


RESUMED = {"epochs": 2, "checkpoint_steps": 2, "finetune": {"epochs": 1, "lr": 1e-3}, "dropout": 0.1,
           "alpha": 0.2, "alpha_end": 0.9, "alpha_schedule": "cosine", "temperature": 4, "temperature_end": 1,
           "confidence": "temperature"}


@pytest.fixture(scope="module")
def unbroken() -> dict:
    """The run that nobody interrupts, made by the first test that needs it."""
    return {}


@pytest.mark.parametrize("stop_after", range(1, 7), ids=[
    "in epoch 1", "after epoch 1", "in epoch 2", "after stage 1", "in stage 2", "before it is published"])
def test_an_interrupted_and_resumed_run_is_bit_equal_to_one_that_is_not(job, tmp_path, unbroken, stop_after):
    if not unbroken:
        wanted = job(copy="whole", **RESUMED)
        steps = Here(tmp_path / "whole-checkpoint")
        unbroken["made"] = run_in_process(wanted, steps)
        unbroken["weights"], unbroken["reports"] = weights(wanted, unbroken["made"]), len(steps.reports)
        assert unbroken["reports"] == 6, "a checkpoint in each of the three epochs, and one at its end"
    wanted = job(copy="broken", **RESUMED)
    with pytest.raises(Interrupted):
        run_in_process(wanted, Here(tmp_path / "checkpoint", stop_after))
    assert Store(wanted.storage).names("students") == []
    rest = Here(tmp_path / "checkpoint")
    made = run_in_process(wanted, rest)
    assert len(rest.reports) == unbroken["reports"] - stop_after
    assert equal(weights(wanted, made), unbroken["weights"])
    assert scores(made) == scores(unbroken["made"])


def test_a_last_stage_that_does_not_improve_is_not_kept(job, tmp_path):
    plain, staged = job(copy="plain", epochs=1), job(copy="staged", epochs=1, finetune={"epochs": 2, "lr": 1e-30})
    first = run_in_process(plain, Here(tmp_path / "a"))
    both = run_in_process(staged, Here(tmp_path / "b"))
    assert [entry["stage"] for entry in both["history"]] == [0, 1, 1] and both["best_epoch"] == 1
    assert equal(weights(plain, first), weights(staged, both))


def test_a_last_stage_that_improves_is_kept(job, here):
    made = run_in_process(job(epochs=1, lr=1e-30, dropout=0, batch_size=16, finetune={"epochs": 4, "lr": 5e-3}), here)
    assert made["best_epoch"] > 1
    assert made["validation"]["accuracy"] > made["history"][0]["accuracy"]


def test_patience_stops_a_run_that_no_longer_improves(job, here):
    made = run_in_process(job(epochs=9, lr=1e-30, patience=2), here)
    assert [entry["epoch"] for entry in made["history"]] == [1, 2, 3] and made["best_epoch"] == 1


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_no_student(job, here):
    wanted = job(lr=1e30, batch_size=8)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in step .* with lr 1e[+]30, precision float32"):
        run_in_process(wanted, here)
    assert Store(wanted.storage).names("students") == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_is_no_number_is_found_within_ten_steps(job, here, precision):
    with pytest.raises(TrainingError, match=rf"the loss is nan in step \d of epoch 1 .* precision {precision}"):
        run_in_process(replace(job(lr=1e30, batch_size=2), precision=precision), here)


def test_a_loss_that_is_no_number_is_never_in_a_checkpoint(job, here):
    with pytest.raises(TrainingError, match="the loss is nan in step 1 of epoch 1"):
        run_in_process(job(lr=1e30, batch_size=2, checkpoint_steps=2), here)
    assert not here.folder.exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_last_step_that_breaks_the_weights_is_found_on_validation(job, here, precision):
    """The only step of the epoch, so that its loss is that of whole weights."""
    wanted = replace(job(lr=1e30, batch_size=500, epochs=1), precision=precision)
    with pytest.raises(TrainingError, match=f"logits on validation are not finite, precision {precision}"):
        run_in_process(wanted, here)
    assert Store(wanted.storage).names("students") == []


def test_the_baseline_of_a_scheduled_job_is_plain(job, tmp_path):
    plain = job(copy="plain", alpha=1.0, epochs=1)
    scheduled = job(copy="scheduled", alpha=1.0, epochs=1, alpha_end=0.0, temperature_end=1.0, confidence="weight")
    first = run_in_process(plain, Here(tmp_path / "a"))
    other = run_in_process(scheduled, Here(tmp_path / "b"))
    assert first["key"] == other["key"] and equal(weights(plain, first), weights(scheduled, other))
    assert first["history"] == other["history"] and not {"ratio", "agreement", "kl"} & first["history"][0].keys()


@pytest.mark.parametrize("settings", [
    {"alpha_end": 0.9}, {"temperature_end": 1.0}, {"confidence": "temperature", "temperature": 4.0},
    {"confidence": "weight"}, {"loss": "annealing", "temperature": 4.0}], ids=lambda settings: next(iter(settings)))
def test_a_schedule_changes_what_is_learnt(job, tmp_path, settings):
    plain, scheduled = job(copy="plain", epochs=1), job(copy="scheduled", epochs=1, **settings)
    found = [weights(wanted, run_in_process(wanted, Here(tmp_path / wanted.key))) for wanted in (plain, scheduled)]
    assert not equal(*found)


def test_an_epoch_says_how_close_the_student_is_to_the_teacher(job, here, corpus):
    wanted = job(FAR, epochs=1)
    made = run_in_process(wanted, here)
    rows = corpus.rows("validation")
    likely = []
    for folder in (corpus.model, Store(wanted.storage).fetch("students", made["key"])):
        model = load_model(corpus.task, folder, corpus.labels).eval()
        logits = np.concatenate(predict(model, corpus.task, rows, np.arange(len(rows)), 0, 1024)).astype(float)
        likely.append(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    p, q = likely
    entry = made["history"][0]
    assert entry["agreement"] == (p.argmax(-1) == q.argmax(-1)).mean()
    assert entry["kl"] == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-3) and entry["kl"] > 0.01
    assert entry["ratio"] > 0


def test_only_epochs_with_both_terms_have_a_ratio(job, tmp_path):
    staged = run_in_process(job(copy="staged", epochs=1, finetune={"epochs": 1}), Here(tmp_path / "a"))
    assert ["ratio" in entry for entry in staged["history"]] == [True, False]
    pure = run_in_process(job(copy="pure", epochs=1, alpha=0.0), Here(tmp_path / "b"))
    assert "ratio" not in pure["history"][0] and "kl" in pure["history"][0]


def test_a_distillation_that_does_nothing_is_warned_of(job, tmp_path):
    found = []
    for copy, alpha in (("some", 0.5), ("none", 0.99999)):
        wanted = job(FAR, copy=copy, alpha=alpha, epochs=1)
        found.append(warning_of(run_in_process(wanted, Here(tmp_path / f"{copy}-checkpoint"))["history"][0]))
    assert found[0] is None and "alpha is near 1" in found[1]


def test_a_live_teacher_gives_the_student_of_its_cache(job, tmp_path, corpus):
    cached = job(FAR, copy="cached", dropout=0)
    live = replace(job(FAR, copy="live", dropout=0), cache=None, live=Live(
        str(corpus.model), "fingerprint", corpus.manifest["key"], corpus.manifest["pad_token_id"], "float32"))
    one, other = (run_in_process(wanted, Here(tmp_path / f"{wanted.key}")) for wanted in (cached, live))
    first, second = weights(cached, one), weights(live, other)
    assert one["key"] != other["key"]
    assert other["parents"] == {**one["parents"], "cache": None, "teacher": "fingerprint"}
    assert all(np.abs(tensor - second[name]).max() < 1e-4 for name, tensor in first.items())
    for entry, its in zip(one["history"], other["history"], strict=True):
        assert entry == pytest.approx(its, rel=1e-3) and {"ratio", "agreement", "kl"} <= its.keys()


@pytest.mark.parametrize("loss", ["kl", "mse", "huber"])
def test_a_student_that_is_the_teacher_stays_there_under_pure_distillation(job, here, corpus, loss):
    # temperature^2 multiplies float32's rounding too, which at 1 is below the bound.
    settings = {"alpha": 0.0, "loss": loss, "temperature": 1.0, "dropout": 0, "weight_decay": 0, "lr": 1e-5}
    wanted = job(origin={}, **settings)
    made = run_in_process(wanted, here)
    assert max(entry["loss"] for entry in made["history"]) < 1e-8
    teacher = load_file(corpus.model / "model.safetensors")
    assert all(np.abs(tensor - teacher[name]).max() < 2e-4 for name, tensor in weights(wanted, made).items())
    other = run_in_process(job(origin={"fresh": {}}, **settings), Here(here.folder.parent / "other"))
    assert min(entry["loss"] for entry in other["history"]) > 1e-6, "a student that is not the teacher has a loss"


def test_pure_distillation_never_sees_a_hard_label(job, tmp_path, corpus):
    one = job(copy="one", alpha=0.0, epochs=1)
    other = replace(job(copy="other", alpha=0.0, epochs=1), labels=("negative", "positive"))
    path = Path(other.storage) / "corpus" / other.corpus / "train-000000.arrow"
    table = corpus.rows("train").table
    flipped = pa.array([[1 - ids[0]] for ids in corpus.rows("train").gold()], pa.list_(pa.int32()))
    table = table.set_column(table.schema.get_field_index("labels"), "labels", flipped)
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    found = [weights(wanted, run_in_process(wanted, Here(tmp_path / f"{i}"))) for i, wanted in enumerate((one, other))]
    assert equal(*found)


def test_accumulation_takes_the_same_steps(job, tmp_path):
    losses = []
    for accumulation in (1, 3):
        wanted = job(copy=f"a{accumulation}", epochs=1, dropout=0, accumulation=accumulation)
        losses.append(run_in_process(wanted, Here(tmp_path / f"c{accumulation}"))["history"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_token_student_is_trained_on_words(token_corpus, here, tmp_path):
    cache = make_cache(token_corpus)
    settings = TrainingConfig(epochs=4, lr=5e-3, batch_size=16, alpha=0.9, dropout=0).model_dump()
    made = run_in_process(TrainingJob(
        "students", token_corpus.store.uri, token_corpus.task.name, tuple(token_corpus.labels),
        token_corpus.manifest["key"], cache["key"], Origin(str(token_corpus.model), layers=(1,)), "fingerprint",
        str(token_corpus.model), 0, "f1", settings, "float32"), here)
    assert made["validation"].keys() == {"f1", "precision", "recall", "accuracy"}
    assert made["history"][-1]["loss"] < made["history"][0]["loss"] / 2
    assert made["validation"]["f1"] > 0.5


@pytest.mark.parametrize("origin", [CUT, FAR])
def test_tokens_that_no_row_has_are_left_alone_and_change_nothing_else(job, tmp_path, monkeypatch, origin):
    here = job(origin, weight_decay=0.0)
    run_in_process(here, Here(tmp_path / "cut"))
    monkeypatch.setattr("kdray.models.vocabulary._MOST", 0.0)
    there = job(origin, "whole", weight_decay=0.0)
    run_in_process(there, Here(tmp_path / "not"))
    cut, whole = (load_file(Store(one.storage).fetch(one.kind, one.key) / "model.safetensors") for one in (here, there))
    assert cut.keys() == whole.keys()
    for name in cut:
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-4, err_msg=name)
