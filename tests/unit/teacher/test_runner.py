"""A runner writes the logits that the model gives, and refuses those that are no numbers."""

import numpy as np
import pytest
import torch

from kdray.cache.plan import KEY, Slot
from kdray.cache.receipts import list_shards
from kdray.cache.shard import Receipt, Schema, ShardView, find_shard, open_shard
from kdray.errors import CacheError, StorageError
from kdray.models.forward import predict
from kdray.models.load import load_model
from kdray.storage import Store
from kdray.teacher.runner import TeacherJob, TeacherRunner
from tests.small import sentences
from tests.unit.conftest import make_corpus, plan_of


@pytest.fixture(params=["corpus", "token_corpus"])
def work(request):
    """A corpus, a runner for its model, and the slots of its rows."""
    corpus = request.getfixturevalue(request.param)
    labels = tuple(corpus.labels)
    schema = Schema("of these tests", corpus.task.name, labels, 24, "float32")
    slots = plan_of(schema, {split: corpus.rows(split) for split in ("train", "test")}, 16)
    job = TeacherJob(str(corpus.model), schema, 256, 0, 1, corpus.store.uri, corpus.manifest["key"],
                     corpus.manifest["pad_token_id"])
    return corpus, TeacherRunner(job), slots


def stored(store: Store, slot: Slot) -> list[Receipt | None]:
    """What lies in storage under the slot's key."""
    names = list_shards(store, np.array([slot.key], KEY)).candidates(slot.key)
    return [find_shard(store, name, slot.rows) for name in names]


def test_a_filled_slot_holds_the_models_logits_and_targets(work):
    corpus, runner, slots = work
    model = load_model(corpus.task, corpus.model, corpus.labels).eval()
    for slot in (slots[1], slots[-1]):
        done = runner.fill(slot)
        rows, indices = corpus.rows(slot.split), np.arange(slot.start, slot.stop)
        receipt = done.receipt
        view = ShardView(open_shard(corpus.store, slot.key, receipt.sha256, receipt.bytes), len(corpus.labels))
        wanted = predict(model, corpus.task, rows, indices, corpus.manifest["pad_token_id"], 256)
        for place, index in enumerate(indices):
            units, logits = view[place]
            assert np.array_equal(logits, wanted[place]) and np.array_equal(units, rows.targets[index])
        assert stored(corpus.store, slot) == [done.receipt]
        assert done.unsettled.tolist() == np.concatenate(wanted).argmax(-1).tolist()[:256]
        assert done.gold.tolist() == np.concatenate([rows.labels[i][rows.targets[i]] for i in indices]).tolist()[:256]
        assert done.seconds > 0


def test_a_slot_filled_twice_has_the_same_receipt(work):
    _, runner, slots = work
    assert runner.fill(slots[0]).receipt == runner.fill(slots[0]).receipt


def test_logits_that_are_not_finite_stop_the_slot_with_its_rows_and_write_nothing(work):
    corpus, runner, slots = work
    with torch.no_grad():
        runner.model.classifier.bias[0] = float("nan")
    with pytest.raises(CacheError, match=r"rows 32 to 47 of the train split: row 0 of the shard .*not finite"):
        runner.fill(slots[2])
    assert stored(corpus.store, slots[2]) == []


def test_a_slot_whose_rows_are_in_several_parts_of_the_corpus_is_filled_alike(model_folder, tmp_path, monkeypatch):
    def shards(name: str) -> list[str]:
        made = make_corpus(tmp_path / name, "sequence-classification", sentences(160), model_folder)
        counts.append(len(made.manifest["parts"]["train"]))
        schema = Schema("of this test", made.task.name, tuple(made.labels), 24, "float32")
        job = TeacherJob(str(model_folder), schema, 256, 0, 1, made.store.uri, made.manifest["key"], 0)
        runner = TeacherRunner(job)
        return [runner.fill(slot).receipt.sha256 for slot in plan_of(schema, {"train": made.rows("train")}, 64)]

    counts: list[int] = []
    one = shards("one")
    monkeypatch.setattr("kdray.corpus.pieces.ROWS", 25)
    assert shards("several") == one and counts == [1, 6]


def test_a_part_that_is_spoilt_or_gone_stops_the_slot_with_the_remedy(model_folder, tmp_path):
    made = make_corpus(tmp_path, "sequence-classification", sentences(160), model_folder)
    schema = Schema("of this test", made.task.name, tuple(made.labels), 24, "float32")
    job = TeacherJob(str(model_folder), schema, 256, 0, 1, made.store.uri, made.manifest["key"], 0)
    slot, part = plan_of(schema, {"train": made.rows("train")}, 64)[0], made.folder / "train-000000.arrow"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"train-000000.arrow is corrupt: \d+ bytes .*Delete the folder"):
        TeacherRunner(job).fill(slot)
    part.unlink()
    with pytest.raises(StorageError, match=r"train-000000.arrow is missing.*Delete the folder"):
        TeacherRunner(job).fill(slot)
    (made.folder / "manifest.json").unlink()
    with pytest.raises(StorageError, match="not there any more"):
        TeacherRunner(job)
