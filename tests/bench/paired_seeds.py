"""Winner and baseline of a run, trained again with other seeds: the test metric of each pair and the mean gain.

    python tests/bench/paired_seeds.py RUN [--seeds 0 1 2]

RUN is the folder that `kdray run` printed. Students that exist are not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import ray

from kdray.cluster import connect
from kdray.config import parse
from kdray.console import log_to_stderr
from kdray.corpus.rows import Rows
from kdray.evaluation.quality import model_predictions
from kdray.pipeline import Pipeline
from kdray.search.trial import point_job
from kdray.training.job import TrainingJob
from kdray.training.trainer import fit


def main() -> None:
    """Trains pairs side by side and prints a line a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    log_to_stderr()
    folder = Path(options.run).expanduser()
    run = json.loads((folder / "run.json").read_text())
    pipeline = Pipeline(parse(json.loads(run["config"]), str(folder)))
    won = next(row["point"] for row in pipeline.sweep["trials"]
               if row["student"] == pipeline.sweep["winner"] and not row["baseline"])
    connect()
    gains = []
    for seed in options.seeds:
        made = train([point_job(pipeline.job, {**point, "seed": seed}) for point in ({"alpha": 1.0}, won)])
        baseline, winner = (test_metric(pipeline, student) for student in made)
        gains.append(winner - baseline)
        print(f"seed {seed}: baseline {baseline:.4f}, distilled {winner:.4f}, gain {gains[-1]:+.4f}", flush=True)
    print(f"mean gain over {len(gains)} paired seeds: {sum(gains) / len(gains):+.4f}")


def train(jobs: list[TrainingJob]) -> list[dict[str, Any]]:
    """Manifests of the jobs' students, trained side by side with a CPU each."""
    run = ray.remote(num_cpus=0)(fit)
    small = [TrainingJob(**{**job.__dict__, "settings": {**job.settings, "num_cpus": 1}}) for job in jobs]
    return ray.get([run.remote(job, "training") for job in small])


def test_metric(pipeline: Pipeline, student: dict[str, Any]) -> float:
    """The run's metric on the test split."""
    rows, labels = Rows(pipeline.store.fetch("corpus", student["parents"]["corpus"]), "test"), student["labels"]
    found, _ = model_predictions(pipeline.task, pipeline.store.fetch("students", student["key"]), rows, labels,
                                 pipeline.corpus["pad_token_id"])
    return pipeline.task.scores(rows.gold(), found.ids, labels)[student["metric"]]


if __name__ == "__main__":
    main()
