"""What benchmarks on SST-2 share: the config, the fresh student, and a command as a user gives it."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

FRESH = {"fresh": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}}
"""2 layers, 128 wide, random weights."""


def options_for(doc: str | None) -> argparse.ArgumentParser:
    """A parser with where the rows and the teacher are."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/sst2")
    parser.add_argument("--teacher", default="../shared/models/sst2-teacher")
    return parser


def config_for(scratch: Path, options: argparse.Namespace, training: dict[str, Any]) -> dict[str, Any]:
    """The config but for the student, with a storage in `scratch`."""
    data = Path(options.data).resolve()
    return {
        "storage": str(scratch / "store"), "teacher": {"model": str(Path(options.teacher).resolve())},
        "data": {**{split: str(data / f"{split}.csv") for split in ("train", "validation", "test")},
                 "columns": {"text": "sentence", "label": "label"}, "max_length": 128},
        "training": training}


def kdray(*arguments: str) -> None:
    """Runs a command; what it prints on standard output is dropped."""
    subprocess.run([sys.executable, "-m", "kdray.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
