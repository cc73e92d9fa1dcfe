"""The same pipeline on a CUDA device, with Ray; skipped where there is none of either."""

from pathlib import Path

import pytest
import torch

from kdray.config import load
from kdray.pipeline import Pipeline
from tests.integration.conftest import small_config, write_config
from tests.small import make_model, sentences, write_jsonl

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_teacher_and_student_on_one_gpu(tmp_path: Path, precision: str) -> None:
    ray = pytest.importorskip("ray")
    rows, base = write_jsonl(tmp_path / "rows.jsonl", sentences(400)), make_model(tmp_path / "base")
    config = small_config(tmp_path / "store", rows, base, {
        "teacher": {"model": str(base), "num_gpus": 1, "precision": precision,
                    "finetune": {"epochs": 3, "lr": 3e-3, "num_gpus": 1, "precision": precision}},
        "training": {"epochs": 3, "lr": 3e-3, "num_gpus": 1, "precision": precision}})
    ray.init("local", include_dashboard=False, log_to_driver=False)
    try:
        student = Pipeline(load(write_config(tmp_path / "c.yaml", config))).students["student"]
    finally:
        ray.shutdown()
    assert student["validation"]["accuracy"] > 0.9
