"""Winner as served (ONNX int8) against its teacher in transformers.pipeline, same SST-2 test texts, in one run.

    python tests/bench/serve_speed.py RUN

RUN is the folder that `kdray run` printed. Prints examples/s, their ratio, and accuracy against PyTorch.
"""

import argparse
import json
import os
from pathlib import Path

from kdray.config import parse
from kdray.corpus.rows import Rows
from kdray.pipeline import Pipeline
from kdray.report.speed import measure
from kdray.storage import Store


def main() -> None:
    """Three rounds, so that the spread is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    folder = Path(parser.parse_args().run).expanduser()
    run = json.loads((folder / "run.json").read_text())
    config = parse(json.loads(run["config"]), str(folder))
    pipeline, store, threads = Pipeline(config), Store(config.storage), len(os.sched_getaffinity(0))
    rows = Rows.open(store.fetch("corpus", run["lineage"]["corpus"]), "test")
    items = rows.items(pipeline.task)
    for _ in range(3):
        speed = measure(
            pipeline.task, {"teacher": pipeline.teacher.folder}, store.fetch("packages", run["package"]), items,
            config.data.max_length, threads, config.serve.batch_tokens)
        rates = {name: times["examples_per_second"] for name, times in speed.items()}
        print(f"{len(items)} texts, {threads} threads: teacher {rates['teacher']:.0f}/s, served {rates['served']:.0f}/s"
              f", {rates['served'] / rates['teacher']:.1f}x")
    numbers = pipeline.report["numbers"]
    metric = numbers["metric"]
    print(f"test {metric}: winner {numbers['test']['winner'][metric]['value']:.4f} in PyTorch, "
          f"{numbers['test']['served'][metric]['value']:.4f} as served")


if __name__ == "__main__":
    main()
