"""What the user can get wrong: a clear message, exit status 1, nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.families import make_family
from tests.integration.conftest import Command, small_config, write_config
from tests.small import make_model, sentences, write_jsonl

Change = Callable[[dict[str, Any], Path, Path], None]


def edit_rows(edit: Callable[[list[dict]], None]) -> Change:
    def change(config: dict[str, Any], folder: Path, teacher: Path) -> None:
        rows: list[dict] = sentences(200)
        edit(rows)
        config["data"]["source"] = str(write_jsonl(folder / "rows.jsonl", rows))

    return change


def edit_teacher(edit: Callable[[Path], None]) -> Change:
    def change(config: dict[str, Any], folder: Path, teacher: Path) -> None:
        shutil.copytree(teacher, folder / "teacher")
        edit(folder / "teacher")
        config["teacher"]["model"] = str(folder / "teacher")

    return change


def relabel(names: list[str]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def break_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def set_label(rows: list[dict], names: list[str]) -> None:
    for row, name in zip(rows, names, strict=False):
        row["label"] = name


def splits(config: dict[str, Any], folder: Path, teacher: Path) -> None:
    write_jsonl(folder / "train.jsonl", sentences(200))
    write_jsonl(folder / "validation.jsonl", [{"text": "the film", "label": "unheard"}])
    config["data"] = {"train": str(folder / "train.jsonl"), "validation": str(folder / "validation.jsonl"),
                      "max_length": 32}
    config["teacher"]["finetune"] = {"epochs": 1}


CASES: dict[str, tuple[Change, list[str]]] = {
    "missing file": (lambda config, folder, teacher: config["data"].update(source=str(folder / "none.csv")),
                     ["no file matches", "none.csv"]),
    "missing column": (edit_rows(lambda rows: [row.pop("label") for row in rows] and None),
                       ["no column 'label'", "data.columns.label"]),
    "empty split": (edit_rows(lambda rows: rows.clear()), ["rows.jsonl"]),
    "empty text": (edit_rows(lambda rows: rows[7].update(text=" ")), ["row 7 of the train split", "text is empty"]),
    "one class only": (edit_rows(lambda rows: set_label(rows, ["positive"] * 200)), ["one class only", "positive"]),
    "label unseen by the teacher": (edit_rows(lambda rows: set_label(rows, ["neutral"])),
                                    ["neutral", "the teacher's labels are negative, positive"]),
    "label unseen in training": (splits, ["unheard"]),
    "no such teacher": (lambda config, folder, teacher: config["teacher"].update(model="./nowhere"),
                        ["no model folder ./nowhere"]),
    "teacher not on the hub": (lambda config, folder, teacher: config["teacher"].update(model="some/bert"),
                               ["'some/bert' is no local folder", "hub"]),
    "teacher without tokenizer": (edit_teacher(lambda folder: [path.unlink() for path in folder.glob("*") if
                                                               "token" in path.name or path.suffix == ".txt"] and None),
                                  ["has no tokenizer"]),
    "pickled weights only": (edit_teacher(pickle_weights), ["pickled weights only", "safetensors only"]),
    "teacher with other labels": (edit_teacher(relabel(["bad", "good"])), ["the teacher's labels are bad, good"]),
    "teacher with permuted labels": (edit_teacher(relabel(["positive", "negative"])),
                                     ["label map disagrees", "negative is what it calls positive"]),
    "logits that are not finite": (edit_teacher(break_weights), ["not finite", "of the train split"]),
    "more actors than the cluster has": (lambda config, folder, teacher: config["teacher"].update(actors=9, num_cpus=4),
                                         ["teacher.actors = 9 with 4 CPU each does not fit", "Lower teacher.actors"]),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_a_reason(kdray_here: Command, tmp_path: Path, rows: Path, teacher: Path, name: str) -> None:
    change, words = CASES[name]
    config = small_config(tmp_path / "store", rows, teacher)
    change(config, tmp_path, teacher)
    done = kdray_here("cache", "fill", str(write_config(tmp_path / "c.yaml", config)))
    assert done.returncode == 1, done.stderr
    message = done.stderr.splitlines()[-1]
    assert message.startswith("kdray: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in message
    assert not list((tmp_path / "store").rglob(".tmp-*"))
    assert not (tmp_path / "store" / "caches").exists()


def family(name: str, student: dict[str, Any]) -> Change:
    """A teacher of a family, and a student of it."""
    def change(config: dict[str, Any], folder: Path, teacher: Path) -> None:
        make_family(folder / "teacher", name, "sequence-classification", ["negative", "positive"])
        config["teacher"]["model"], config["student"] = str(folder / "teacher"), student

    return change


def add_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra", "quagga"])
    tokenizer.save_pretrained(folder)


def smaller_student(config: dict[str, Any], folder: Path, teacher: Path) -> None:
    config["student"] = {"model": str(make_model(folder / "small")), "fresh": {"max_position_embeddings": 16}}


def too_many(config: dict[str, Any], folder: Path, teacher: Path) -> None:
    config["student"] = {"model": str(make_model(folder / "other")), "layers": 5}


def headless(config: dict[str, Any], folder: Path, teacher: Path) -> None:
    relabel(["negative", "positive"])(make_model(folder / "teacher", head="BertModel"))
    config["teacher"]["model"] = str(folder / "teacher")


MODELS: dict[str, tuple[Change, list[str]]] = {
    "student with fewer positions than rows have tokens": (
        smaller_student, ["data.max_length = 32 is more than the 16 positions of student", "small, fresh"]),
    "tokenizer with more tokens than the model has embeddings": (
        edit_teacher(add_tokens), ["numbers tokens up to 84", "embeddings for 83", "resize_token_embeddings"]),
    "fresh student whose layers have other types": (
        family("Qwen2", {"fresh": {"layer_types": ["full_attention"]}}), ["student.fresh", "`layer_types` (1)"]),
    "fresh student whose heads do not go together": (
        family("Llama", {"fresh": {"num_attention_heads": 1}}), ["student", "cannot read rows", "num_key_value_heads"]),
    "layers that share their weights": (
        family("ALBERT", {"layers": 2}), ["share their weights", "student.fresh", "student.model"]),
    "layers that do not fit their new places": (
        family("ModernBERT", {"layers": [1, 3]}), ["student.layers [1, 3]", "attn_norm", "Keep layer 0 there"]),
    "layers that another model does not have": (
        too_many, ["student.layers 5 is more than the 4 layers"]),
    "teacher without a head": (headless, ["no weights for classifier.bias, classifier.weight", "teacher.finetune"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_do_it_is_refused_before_any_work(kdray_here: Command, tmp_path: Path, rows: Path,
                                                              teacher: Path, name: str) -> None:
    change, words = MODELS[name]
    config = small_config(tmp_path / "store", rows, teacher)
    change(config, tmp_path, teacher)
    done = kdray_here("distill", str(write_config(tmp_path / "c.yaml", config)))
    assert done.returncode == 1, done.stderr
    message = done.stderr.splitlines()[-1]
    assert message.startswith("kdray: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in message
    assert not list((tmp_path / "store").rglob("*.arrow")) and not (tmp_path / "store" / "corpus").exists()


def test_manifest_of_another_version_is_refused(kdray_here: Command, tmp_path: Path, rows: Path, teacher: Path) -> None:
    config = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, teacher))
    assert kdray_here("cache", "fill", str(config)).returncode == 0
    (manifest,) = (tmp_path / "store" / "corpus").glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 99'))
    done = kdray_here("cache", "fill", str(config))
    assert done.returncode == 1 and "manifest version 99, this kdray reads 2" in done.stderr


def test_corrupt_shard_is_found_when_it_is_read(kdray_here: Command, tmp_path: Path, rows: Path, teacher: Path) -> None:
    config = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, teacher))
    assert kdray_here("cache", "fill", str(config)).returncode == 0
    for shard in (tmp_path / "store" / "shards").rglob("*.arrow"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    done = kdray_here("distill", str(config))
    assert done.returncode == 1 and "is corrupt" in done.stderr and "run again" in done.stderr


def test_full_disk_is_said_and_the_next_run_goes_on(kdray_here: Command, tmp_path: Path, rows: Path,
                                                    teacher: Path) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        config = write_config(tmp_path / "c.yaml", small_config(disk / "store", rows, teacher, {
            "cache": {"rows_per_shard": 2}}))
        done = kdray_here("cache", "fill", str(config))
        assert done.returncode == 1 and "no space left" in done.stderr, done.stderr
        assert not list(disk.rglob(".tmp-*")) and not (disk / "store" / "caches").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        again = kdray_here("cache", "fill", str(config))
        assert again.returncode == 0, again.stderr
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
