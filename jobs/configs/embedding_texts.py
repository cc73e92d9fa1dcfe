"""The texts of several data sets as rows of one column, for jobs/configs/embeddings.yaml."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path


def texts(folder: str) -> list[dict[str, str]]:
    """Every text of the training splits of STS-B, SST-2 and CLINC150 in `folder`, once."""
    return [{"sentence1": text} for text in dict.fromkeys(_texts(Path(folder)))]


def _texts(folder: Path) -> Iterator[str]:
    for file, columns in (("stsb-en/train.csv", ("sentence1", "sentence2")), ("sst2/train.csv", ("sentence",))):
        with (folder / file).open(encoding="utf-8", newline="") as lines:
            yield from (row[column] for row in csv.DictReader(lines) for column in columns)
    for line in (folder / "clinc150/train.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["text"]
