"""What `auto` was the first time it stays, whatever processor asks later."""

import pytest

from kdray.config import load
from kdray.errors import StorageError
from kdray.models.precision import kept_precision
from kdray.pipeline import Pipeline
from kdray.storage import Store
from tests.integration.conftest import small_config, write_config
from tests.small import sentences, write_jsonl


def kept(store: Store, who: str, native: bool, corpus: str = "corpus") -> str:
    return kept_precision(store, corpus, who, lambda: native)


def test_what_auto_was_the_first_time_it_is_for_the_same_work_on_every_processor(tmp_path):
    store = Store(str(tmp_path))
    assert [kept(store, "teacher", native) for native in (True, False)] == ["bfloat16"] * 2
    assert [kept(store, "students", native) for native in (False, True)] == ["float32"] * 2
    assert kept(store, "teacher", False, "another corpus") == "float32"


@pytest.mark.parametrize("torn", [b"", b"{}", b"[]", b'{"precision": "int4"}'])
def test_a_file_that_says_nothing_is_named_with_the_remedy(tmp_path, torn):
    store = Store(str(tmp_path))
    kept(store, "teacher", True)
    (name,) = store.names("precisions")
    store.write(torn, "precisions", name)
    with pytest.raises(StorageError, match=rf"precisions/{name} does not say .*Delete it, or set the precision"):
        kept(store, "teacher", True)


def test_a_driver_with_another_processor_finds_the_same_artefacts(tmp_path, model_folder, monkeypatch):
    """The cache of a teacher, and students: here of a live one, whose keys need no cache."""
    rows = write_jsonl(tmp_path / "rows.jsonl", sentences(60))
    path = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, model_folder))

    def made(native: bool, *more: str) -> tuple[str, str]:
        monkeypatch.setattr("kdray.models.precision.has_bfloat16", lambda: native)
        pipeline = Pipeline(load(path, ["teacher.live=true", *more]))
        return pipeline.schema.precision, pipeline.jobs["student"].key

    first = made(True)
    assert first == made(False) and first[0] == "bfloat16"
    assert made(True, "training.precision=float32")[1] != first[1], "a config that names one has its way"
    assert made(True, "teacher.precision=float32")[0] == "float32"
