"""What appended and edited rows cost the teacher: SST-2, then 1,000 rows more, then 10 rows edited.

    python tests/bench/cache_increment.py [--data FILE.csv] [--teacher FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from kdray.config import parse
from kdray.console import log_to_stderr
from kdray.pipeline import Pipeline


def main() -> None:
    """Fills the three caches in one storage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/sst2/train.csv")
    parser.add_argument("--teacher", default="../shared/models/sst2-teacher")
    options = parser.parse_args()
    log_to_stderr()
    whole = pyarrow.csv.read_csv(options.data)
    text = whole.column("sentence").to_pylist()
    for place in np.random.default_rng(0).choice(len(whole) - 1000, 10, replace=False):
        text[place] += " indeed"
    edited = whole.set_column(whole.column_names.index("sentence"), "sentence", pa.array(text))
    with tempfile.TemporaryDirectory() as folder:
        held = whole.slice(0, 200)
        for name, table in (("all but 1,000 rows", whole.slice(0, len(whole) - 1000)), ("1,000 rows appended", whole),
                            ("10 rows edited", edited)):
            made = fill(Path(folder), table, held, options.teacher)
            print(f"{name}: {sum(made['rows'].values())} rows in {made['shards']} shards of {made['rows_per_shard']}; "
                  f"the teacher ran {made['rows_computed']} rows", flush=True)


def fill(folder: Path, train: pa.Table, held: pa.Table, teacher: str) -> dict:
    """The cache's manifest."""
    for name, table in (("train", train), ("held", held)):
        pyarrow.csv.write_csv(table, folder / f"{name}.csv")
    data = {"train": f"{folder}/train.csv", "validation": f"{folder}/held.csv", "test": f"{folder}/held.csv",
            "columns": {"text": "sentence"}}
    return Pipeline(parse({"storage": f"{folder}/store", "data": data, "teacher": {"model": teacher}}, "bench")).cache


if __name__ == "__main__":
    main()
