"""What the engine's part of a checkpoint takes: seconds to write, seconds to read, bytes.

    python tests/bench/checkpoint.py [--layers 6] [--width 384] [--vocabulary 30522] [--times 9] [--stage 0]

A student of MiniLM's size, by default, after one step of AdamW, alone in its process: the engine's state is written to
a folder of TMPDIR and read into the same engine, again and again. Prints medians, and the fastest and the slowest.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from transformers import BertConfig, BertForSequenceClassification

from kdray.config import TrainingConfig
from kdray.training.engine import load_engine, make_engine, save_engine, take_step
from kdray.training.loop import lone_process_group


def main() -> None:
    """One engine, saved and read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--stage", type=int, default=0)
    options = parser.parse_args()
    lone_process_group(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=options.vocabulary, hidden_size=options.width, num_hidden_layers=options.layers,
        num_attention_heads=12, intermediate_size=4 * options.width, num_labels=2))
    settings = {**TrainingConfig().model_dump(), "deepspeed": {"zero_optimization": {"stage": options.stage}}}
    engine = make_engine(model, settings, "float32", 10, 1e-4, 1)
    take_step(engine, engine(input_ids=torch.ones(2, 8, dtype=torch.long)).logits.sum())
    written, read = [], []
    with tempfile.TemporaryDirectory(prefix="kdray-bench-") as name:
        folder = Path(name, "checkpoint")
        for _ in range(options.times):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            written.append(seconds(partial(save_engine, engine, folder)))
            read.append(seconds(partial(load_engine, engine, folder)))
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    print(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M weights, ZeRO {options.stage}: "
          f"{size / 1e6:.1f} MB in {len(files)} files; written in {told(written)}, read in {told(read)}")


def seconds(act: Callable[[], None]) -> float:
    """How long `act` takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def told(times: list[float]) -> str:
    """Median, fastest and slowest."""
    return f"{median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


if __name__ == "__main__":
    main()
