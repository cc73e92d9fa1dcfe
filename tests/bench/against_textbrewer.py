"""A student distilled by kdray and by TextBrewer: same teacher, rows, first weights, epochs, batch, rate, T and alpha.

    pip install --no-deps textbrewer && pip install tensorboard
    python tests/bench/against_textbrewer.py [--students kept fresh] [--data ../shared/data/sst2]
                                             [--teacher ../shared/models/sst2-teacher] [--seed 0]

    kept   3 of the teacher's 6 layers, 3 epochs, lr 1e-4
    fresh  2 layers, 128 wide, random weights, 4 epochs, lr 5e-4

Batches of 32, T = 4, alpha 0.1. TextBrewer runs the teacher in every step, in float32, on batches padded to their
longest row, with linear warm-up and decay as kdray has them. Both are commands, timed with the start of Python, and of
Ray where that is used: a script that distils with TextBrewer (this one, with --into), and `kdray distill` after
`kdray cache fill`. Prints seconds, test accuracy and the ratios, with the teacher's pass and without.
"""

import argparse
import csv
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from sst2 import FRESH, config_for, kdray, options_for

from kdray.config import load
from kdray.corpus.rows import Rows
from kdray.evaluation.answers import Asked, ask
from kdray.models.load import build, save_model
from kdray.pipeline import Pipeline
from kdray.tasks.base import scores_of

STUDENTS: dict[str, dict[str, Any]] = {
    "kept": {"student": {"layers": 3}, "epochs": 3, "lr": 1e-4},
    "fresh": {"student": FRESH, "epochs": 4, "lr": 5e-4},
}
BATCH, TEMPERATURE, ALPHA = 32, 4, 0.1


def main() -> None:
    """Both, one student after the other."""
    parser = options_for(__doc__)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--seed", type=int, default=0, help="of first weights, order and dropout")
    parser.add_argument("--into", nargs=2, metavar=("CONFIG", "FOLDER"), help="distil one with TextBrewer and end")
    options = parser.parse_args()
    if options.into:
        textbrewer(Pipeline(load(options.into[0])), Path(options.into[1]), options, STUDENTS[options.students[0]])
        return
    with tempfile.TemporaryDirectory(prefix="kdray-textbrewer-") as scratch:
        for name in options.students:
            wanted, config = STUDENTS[name], Path(scratch) / "config.yaml"
            training = {"epochs": wanted["epochs"], "lr": wanted["lr"], "batch_size": BATCH,
                        "temperature": TEMPERATURE, "alpha": ALPHA, "seed": options.seed}
            config.write_text(yaml.safe_dump({**config_for(Path(scratch), options, training),
                                              "student": wanted["student"]}))
            teacher_pass = timed(lambda config=config: kdray("cache", "fill", str(config)))
            ours = timed(lambda config=config: kdray("distill", str(config)))
            pipeline = Pipeline(load(config))
            folder = Path(scratch) / f"{name}-textbrewer"
            theirs = timed(lambda name=name, config=config, folder=folder: subprocess.run(
                [sys.executable, __file__, "--into", str(config), str(folder), "--students", name, "--data",
                 options.data, "--teacher", options.teacher, "--seed", str(options.seed)],
                check=True, stdout=subprocess.DEVNULL))
            tell(name, teacher_pass, ours, theirs, accuracy(pipeline, student_of(pipeline)),
                 accuracy(pipeline, folder))


def timed(work: Any) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def student_of(pipeline: Pipeline) -> Path:
    """Folder of kdray's student."""
    return pipeline.store.fetch("students", pipeline.students["student"]["key"])


def accuracy(pipeline: Pipeline, folder: Path) -> float:
    """Test accuracy of the model in `folder`, in float32."""
    rows, labels = Rows.open(pipeline.store.fetch("corpus", pipeline.corpus["key"]), "test"), pipeline.corpus["labels"]
    asked = Asked(pipeline.store.uri, pipeline.task.name, tuple(labels), pipeline.corpus["key"], "test", str(folder))
    ((found,),) = ask([(asked,)], len(rows))
    return scores_of(pipeline.task, rows.gold(), found.by_row(), labels)["accuracy"]


def textbrewer(pipeline: Pipeline, folder: Path, options: argparse.Namespace, wanted: dict[str, Any]) -> None:
    """Distils into `folder`; validation is left out."""
    from textbrewer import BasicDistiller, DistillationConfig, TrainingConfig

    logging.disable(logging.INFO)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.teacher)
    job = pipeline.jobs["student"]
    student = build(pipeline.task, job.origin, list(job.labels), options.seed)
    teacher = transformers.AutoModelForSequenceClassification.from_pretrained(options.teacher).eval()
    loader = batches(options, tokenizer, list(job.labels))
    optimizer = torch.optim.AdamW(student.parameters(), lr=wanted["lr"], weight_decay=0.01)
    steps = wanted["epochs"] * len(loader)
    with tempfile.TemporaryDirectory() as scratch:
        distiller = BasicDistiller(
            TrainingConfig(log_dir=scratch, output_dir=scratch, device="cpu", ckpt_frequency=1),
            DistillationConfig(temperature=TEMPERATURE, hard_label_weight=ALPHA, kd_loss_weight=1 - ALPHA,
                               kd_loss_type="ce"),
            teacher, student, adaptor, adaptor)
        with distiller:
            distiller.train(optimizer, loader, wanted["epochs"], callback=None, max_grad_norm=1.0,
                            scheduler_class=transformers.get_linear_schedule_with_warmup,
                            scheduler_args={"num_warmup_steps": int(0.1 * steps), "num_training_steps": steps})
    logging.disable(logging.NOTSET)
    save_model(pipeline.task, student, Path(options.teacher), folder)


def adaptor(batch: dict[str, torch.Tensor], outputs: Any) -> dict[str, Any]:
    """What TextBrewer wants of a model's outputs."""
    return {"logits": outputs.logits, "losses": outputs.loss}


def batches(options: argparse.Namespace, tokenizer: Any, labels: list[str]) -> Any:
    """The training split in random batches, each padded to its longest row."""
    with open(Path(options.data) / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    tokens = tokenizer([row["sentence"] for row in rows], truncation=True, max_length=128)
    items = [{**{name: tokens[name][place] for name in tokens}, "labels": labels.index(row["label"])}
             for place, row in enumerate(rows)]
    pad = transformers.DataCollatorWithPadding(tokenizer)
    torch.manual_seed(options.seed)
    return torch.utils.data.DataLoader(items, batch_size=BATCH, shuffle=True, collate_fn=lambda part: dict(pad(part)))


def tell(name: str, teacher_pass: float, ours: float, theirs: float, our: float, their: float) -> None:
    """A line a student."""
    print(f"{name}: TextBrewer {theirs:.0f} s at {their:.4f}; kdray {ours:.0f} s at {our:.4f}, teacher's pass "
          f"{teacher_pass:.0f} s; {theirs / ours:.2f}x less, {theirs / (ours + teacher_pass):.2f}x with the pass; "
          f"accuracy {np.subtract(our, their):+.4f}", flush=True)


if __name__ == "__main__":
    main()
