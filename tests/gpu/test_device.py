"""What runs on a GPU says there what it says on a processor, without Ray.

Skipped where there is no CUDA device, unless KDRAY_GPU_TESTS=cpu, which check.sh sets there.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdray.cache.shard import Schema, ShardView, open_shard
from kdray.config import parse
from kdray.models.forward import predict
from kdray.pipeline import Pipeline
from kdray.serving.backends import torch_model
from kdray.teacher.runner import TeacherJob, TeacherRunner, load_teacher
from tests.small import make_model, sentences, write_jsonl
from tests.unit.conftest import Corpus, plan_of

GPUS = int(torch.cuda.is_available())
PRECISIONS = {"float32": 1e-4, "bfloat16": 5e-2, **({"float16": 5e-3} if GPUS else {})}
"""How far a logit may be from float32's on a processor, as a share of the largest."""
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS and os.environ.get("KDRAY_GPU_TESTS") != "cpu",
                                                  reason="there is no CUDA device")]


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Splits of their own, and an untrained teacher as it is."""
    data = {split: str(write_jsonl(folder / f"{split}.jsonl", sentences(count, seed=count)))
            for split, count in (("train", 320), ("validation", 41), ("test", 40))}
    return {"storage": str(folder / "store"), "data": {**data, "max_length": 32},
            "teacher": {"model": str(make_model(folder / "model")), "live": True}, **changes}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    pipeline = Pipeline(parse(config(tmp_path_factory.mktemp("device")), "here"), last="cache")
    return Corpus(pipeline.store, pipeline.corpus, pipeline.base, pipeline.task)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_teachers_shards_hold_what_float32_on_a_processor_says(made: Corpus, precision: str) -> None:
    schema = Schema("teacher", made.task.name, tuple(made.labels), 32, precision)
    job = TeacherJob(str(made.model), schema, 512, GPUS, 1, made.store.uri, made.manifest["key"],
                     made.manifest["pad_token_id"])
    rows, runner = made.rows("train"), TeacherRunner(job)
    exact = load_teacher(replace(schema, precision="float32"), made.model, 0)
    wanted = np.concatenate(predict(exact, made.task, rows, np.arange(len(rows)), job.pad_token_id))
    found = []
    for slot in plan_of(schema, {"train": rows}, 64):
        receipt = runner.fill(slot).receipt
        view = ShardView(open_shard(made.store, receipt.key, receipt.sha256, receipt.bytes), 2)
        found += [view[place][1] for place in range(slot.rows)]
    assert np.abs(np.concatenate(found) - wanted).max() < PRECISIONS[precision] * np.abs(wanted).max()


class Here:
    """A run's surroundings: it begins anew, and nobody looks."""

    rank, workers = 0, 1

    def restore(self) -> None:
        pass

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        pass

    def progress(self, label: str, total: int, done: int) -> Any:
        return Nobody()


class Nobody:
    def advance(self, count: int, **facts: float) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_student_learns_from_labels_and_from_a_live_teacher(tmp_path: Path, precision: str) -> None:
    pytest.importorskip("deepspeed")
    from kdray.training.loop import run_in_process

    training = {"epochs": 6, "lr": 3e-3, "batch_size": 16, "alpha": 0.9, "num_gpus": GPUS, "precision": precision}
    pipeline = Pipeline(parse(config(tmp_path, student={"layers": 2}, training=training), "here"))
    made = run_in_process(pipeline.jobs["student"], Here())
    assert made["precision"] == precision and made["validation"]["accuracy"] > 0.9
    assert {"agreement", "kl", "ratio"} <= made["history"][-1].keys()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_served_model_says_what_float32_on_a_processor_says(made: Corpus, precision: str) -> None:
    inputs = {"input_ids": np.arange(5, 45).reshape(2, 20), "attention_mask": np.ones((2, 20), np.int64),
              "token_type_ids": np.zeros((2, 20), np.int64)}
    there = torch_model(made.model, made.task, made.labels, GPUS, 1, precision)(inputs)
    here = torch_model(made.model, made.task, made.labels, 0, 1, "float32")(inputs)
    assert there.dtype == np.float32 and np.abs(there - here).max() < PRECISIONS[precision] * np.abs(here).max()


@pytest.mark.skipif(not GPUS, reason="the same device twice")
def test_a_split_is_answered_in_float32_as_on_a_processor(made: Corpus) -> None:
    from kdray.evaluation.answers import Asked, ask

    asked = Asked(made.store.uri, made.task.name, tuple(made.labels), made.manifest["key"], "test", str(made.model))
    ((here,), (there,)) = ask([(asked,), (replace(asked, num_gpus=1.0),)], len(made.rows("test")))
    assert there.decided.tolist() == here.decided.tolist() and np.abs(there.confidence - here.confidence).max() < 1e-4
