"""A runner writes the logits that the model gives, and refuses those that are no numbers."""

import numpy as np
import pytest
import torch

from kdray.cache.plan import make_plan
from kdray.cache.shard import Schema, ShardView, find_shard, open_shard
from kdray.errors import CacheError
from kdray.models.forward import predict
from kdray.models.load import load_model
from kdray.teacher.runner import TeacherJob, TeacherRunner


@pytest.fixture(params=["corpus", "token_corpus"])
def work(request):
    """A corpus, a runner for its model, and the slots of its rows."""
    corpus = request.getfixturevalue(request.param)
    labels = tuple(corpus.labels)
    schema = Schema("of these tests", corpus.task.name, labels, 24, "float32")
    slots = make_plan(schema, {split: corpus.rows(split) for split in ("train", "test")}, 16)
    job = TeacherJob(str(corpus.model), schema, 256, 0, 1, corpus.store.uri, corpus.manifest["key"],
                     corpus.manifest["pad_token_id"])
    return corpus, TeacherRunner(job), slots


def test_a_filled_slot_holds_the_models_logits_and_targets(work):
    corpus, runner, slots = work
    model = load_model(corpus.task, corpus.model, corpus.labels, attn_implementation="eager").eval()
    for slot in (slots[1], slots[-1]):
        done = runner.fill(slot)
        rows, indices = corpus.rows(slot.split), np.arange(slot.start, slot.stop)
        receipt = done.receipt
        view = ShardView(open_shard(corpus.store, slot.key, receipt.sha256, receipt.bytes), len(corpus.labels))
        wanted = predict(model, corpus.task, rows, indices, corpus.manifest["pad_token_id"], 256)
        for place, index in enumerate(indices):
            units, logits = view[place]
            assert np.array_equal(logits, wanted[place]) and np.array_equal(units, rows.targets[index])
        assert find_shard(corpus.store, slot.key, slot.rows) == done.receipt
        assert done.predicted == np.concatenate(wanted).argmax(-1).tolist()[:256]
        assert done.gold == np.concatenate([rows.labels[i][rows.targets[i]] for i in indices]).tolist()[:256]
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
    assert find_shard(corpus.store, slots[2].key, slots[2].rows) is None
