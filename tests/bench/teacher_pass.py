"""Soft logits of a whole training split: kdray's actor against transformers.pipeline, batch 32, in one run.

    python tests/bench/teacher_pass.py [--data ../shared/data/sst2/train.csv] [--teacher ../shared/models/sst2-teacher]

kdray's time is that of `fill_cache`: the actor's start, the model's load, the forward pass and the files. The
pipeline's is the forward pass alone, its model loaded and warm.
"""

import argparse
import tempfile
import time

import transformers

from kdray.cluster import connect
from kdray.config import parse
from kdray.console import log_to_stderr
from kdray.pipeline import Pipeline


def main() -> None:
    """Prints rows/s of both and the ratio, with and without the actor's start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/sst2/train.csv")
    parser.add_argument("--teacher", default="../shared/models/sst2-teacher")
    parser.add_argument("--text", default="sentence")
    options = parser.parse_args()
    log_to_stderr()
    with tempfile.TemporaryDirectory() as storage:
        pipeline = Pipeline(parse({
            "storage": storage, "data": {"source": options.data, "columns": {"text": options.text}},
            "teacher": {"model": options.teacher}}, "bench"))
        rows = sum(pipeline.corpus["rows"].values())
        texts = [text for table in pipeline.tables.values() for text in table.column("text").to_pylist()]
        connect()
        started = time.perf_counter()
        cache = pipeline.cache
        whole = time.perf_counter() - started
    reference = _pipeline_seconds(options.teacher, texts)
    busy = cache["teacher_seconds"]
    print(f"{rows} rows; transformers.pipeline, batch 32, float32: {rows / reference:.0f} rows/s")
    print(f"kdray, 1 actor, {cache['schema']['precision']}: {rows / busy:.0f} rows/s, {reference / busy:.2f}x"
          f"; with the actor's start {rows / whole:.0f} rows/s, {reference / whole:.2f}x")


def _pipeline_seconds(teacher: str, texts: list[str]) -> float:
    transformers.logging.set_verbosity_error()
    classify = transformers.pipeline("text-classification", model=teacher, top_k=None, device="cpu")
    options = {"batch_size": 32, "truncation": True, "max_length": 128, "function_to_apply": "none"}
    classify(texts[:64], **options)
    started = time.perf_counter()
    classify(texts, **options)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
