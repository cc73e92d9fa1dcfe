import functools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers

from kdray.corpus.rows import Rows
from kdray.errors import ExportError
from kdray.export import files, onnx
from kdray.export.files import check_export
from kdray.export.onnx import FLOAT32, export_onnx
from kdray.export.quantise import INT8, WAYS, quantise
from kdray.models.architecture import head_class
from kdray.models.embedder import pooled
from kdray.models.forward import head_logits, predict
from kdray.models.onnx_file import OnnxModel
from kdray.models.pooling import Pooling, pools
from kdray.tasks import TASKS

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "num_labels": 3, "initializer_range": 0.2, "pad_token_id": 0}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SMALL),
    "roberta": lambda: transformers.RobertaConfig(**SMALL),
    "electra": lambda: transformers.ElectraConfig(**SMALL, embedding_size=16),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64, num_labels=3, initializer_range=0.2),
}
TYPED = ("bert", "electra")
QUICKEST = next(iter(WAYS))
SHAPES = ((1, 5), (7, 120), (1, 2))
EVERYWHERE = ("sequence-classification", "token-classification")
"""Tasks whose heads, one a text and one a token, are what other tasks' are."""


def make_model(name: str, task: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.num_labels = len(TASKS[task].names) or config.num_labels
    if pools(TASKS[task]):
        pooled(config, Pooling("mean", 32, True), 16)
    return head_class(TASKS[task]).from_config(config, attn_implementation="eager").eval()


def input_names(name: str) -> list[str]:
    return ["input_ids", "attention_mask", *(["token_type_ids"] if name in TYPED else [])]


def make_batch(name: str, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    batch = {"input_ids": torch.randint(3, 100, (rows, tokens), generator=generator),
             "attention_mask": torch.ones((rows, tokens), dtype=torch.int64),
             "token_type_ids": torch.randint(0, 2, (rows, tokens), generator=generator)}
    return {key: batch[key] for key in input_names(name)}


def padded(batch: dict[str, torch.Tensor], tokens: int) -> dict[str, torch.Tensor]:
    return {key: torch.nn.functional.pad(value, (0, tokens)) for key, value in batch.items()}


def write_rows(folder: Path, task: str, lengths: list[int]) -> Rows:
    random = np.random.default_rng(0)
    ids = [random.integers(3, 100, length).tolist() for length in lengths]
    units = [list(range(length)) if task == "token-classification" else [0] for length in lengths]
    columns = {"input_ids": ids, "token_type_ids": [[0] * length for length in lengths], "targets": units,
               "positions": units, "labels": units}
    batch = pa.record_batch({name: pa.array(values, pa.list_(pa.int32())) for name, values in columns.items()})
    with pa.ipc.new_file(str(folder / "validation-000000.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    return Rows.open(folder, "validation")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Folder with the ONNX files of one of the models, made once."""
    @functools.cache
    def make(name: str, task: str) -> Path:
        folder = tmp_path_factory.mktemp(f"{name}-{task}")
        export_onnx(make_model(name, task), input_names(name), folder)
        quantise(folder, QUICKEST)
        return folder

    return make


@pytest.mark.parametrize("name, task", [
    pytest.param(name, task, marks=() if name == "bert" or task in EVERYWHERE else pytest.mark.slow)
    for name in CONFIGS for task in TASKS])
def test_files_answer_like_the_model_at_any_shape_padded_or_not(
        name: str, task: str, exported: Callable[[str, str], Path]) -> None:
    model = make_model(name, task)
    for file, tolerance in ((FLOAT32, 1e-5), (INT8, 0.5)):
        session = OnnxModel(exported(name, task) / file, threads=1)
        assert session.inputs == input_names(name)
        for rows, tokens in SHAPES:
            batch = make_batch(name, rows, tokens)
            with torch.no_grad():
                expected = head_logits(model(**batch))
            for found in (session(**batch).logits, session(**padded(batch, 20)).logits):
                found = found[:, :tokens] if found.ndim == 3 else found
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_predicts_like_the_model(task: str, exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    model, rows = make_model("bert", task), write_rows(tmp_path, task, [3, 30, 7, 7, 50, 1])
    path = exported("bert", task) / FLOAT32
    indices = np.array([4, 0, 5, 2])
    expected = predict(model, TASKS[task], rows, indices, 0, 64)
    found = predict(OnnxModel(path, threads=1), TASKS[task], rows, indices, 0, 64)
    assert [part.dtype for part in found] == [np.float32] * 4
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_weights_are_in_the_file_and_int8_is_smaller(tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification(transformers.BertConfig(
        **{**SMALL, "vocab_size": 5000, "hidden_size": 128}))
    path, small = export_onnx(model, ["input_ids", "attention_mask"], tmp_path), quantise(tmp_path, QUICKEST)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model_int8.onnx"]
    assert small.stat().st_size < 0.35 * path.stat().st_size


def test_says_nothing_and_leaves_logging_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = list(logging.root.handlers), logging.root.level, logging.root.manager.disable
    export_onnx(make_model("bert", "sequence-classification"), input_names("bert"), tmp_path)
    for way in WAYS:
        quantise(tmp_path, way)
    assert capfd.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.level, logging.root.manager.disable) == before


def test_a_model_that_cannot_be_followed_is_an_error(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("this layer has no graph")

    with pytest.raises(ExportError, match=r"cannot export Odd to ONNX: this layer has no graph.*student\.model"):
        export_onnx(Odd(), ["input_ids"], tmp_path)


def tried(config: transformers.PreTrainedConfig) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = transformers.AutoModelForTokenClassification.from_config(config, attn_implementation="eager").eval()
    rows = {"input_ids": torch.randint(5, 100, (2, 20)), "attention_mask": torch.ones(2, 20, dtype=torch.int64),
            "token_type_ids": torch.zeros(2, 20, dtype=torch.int64)}
    rows["attention_mask"][1, 10:] = 0
    return model, rows


def test_a_family_that_is_not_known_to_become_onnx_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    export = files.export_onnx
    monkeypatch.setattr(files, "export_onnx", lambda *given: made.append(export(*given)) or made[-1])
    check_export(*tried(transformers.BertConfig(**SMALL)))
    assert made == []
    check_export(*tried(transformers.MegatronBertConfig(**SMALL)))
    assert [file.name for file in made] == ["model.onnx"] and not made[0].exists()


def test_a_family_that_cannot_become_onnx_is_refused_before_work() -> None:
    with pytest.raises(ExportError, match=r"cannot export MixtralForTokenClassification to ONNX.*student\.model"):
        check_export(*tried(transformers.MixtralConfig(**SMALL, num_key_value_heads=2)))


def test_a_family_that_answers_otherwise_in_onnx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LARGEST_DIFFERENCE", 0.0)
    with pytest.raises(ExportError, match=r"MegatronBert\S+ in ONNX does not answer as in PyTorch: .* apart"):
        check_export(*tried(transformers.MegatronBertConfig(**SMALL)))


def test_weights_beyond_one_file_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "_FILE_LIMIT", 1000)
    with pytest.raises(ExportError, match=r"DistilBert.* bytes of weights.*less than 1000.*student\.layers"):
        export_onnx(make_model("distilbert", "sequence-classification"), ["input_ids"], tmp_path)
