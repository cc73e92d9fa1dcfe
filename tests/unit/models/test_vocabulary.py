"""A model with a cut embedding answers as the whole one does, and becomes it again."""

import numpy as np
import pytest
import torch
import transformers

from kdray.models.vocabulary import cut_vocabulary, numbers, used_ids, whole_vocabulary

IDS = torch.tensor([[1, 20, 31, 7, 1], [20, 20, 39, 8, 7]])


def model(kind: str = "Bert", head: str = "ForSequenceClassification", **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **changes)
    return getattr(transformers, kind + head)(config).eval()


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "Electra", "DebertaV2"])
def test_a_cut_model_answers_to_new_numbers_as_the_whole_one_to_ids(kind):
    made = model(kind, pad_token_id=1)
    wanted = made(IDS).logits
    before = made.get_input_embeddings().weight.detach().clone()
    ids = used_ids([IDS.numpy().ravel()], made)
    whole = cut_vocabulary(made, ids)
    assert len(made.get_input_embeddings().weight) == len(ids) < 20
    torch.testing.assert_close(made(torch.from_numpy(numbers(ids)[IDS].astype(np.int64))).logits, wanted)
    with torch.no_grad():
        made.get_input_embeddings().weight += 1
    whole_vocabulary(made, ids, whole)
    difference = made.get_input_embeddings().weight - before
    assert {round(value, 4) for value in difference[ids].detach().ravel().tolist()} == {1.0}
    assert not difference[np.setdiff1d(np.arange(40), ids)].any()


def test_ids_that_the_config_names_keep_their_numbers():
    ids = used_ids([np.array([30, 30, 39])], model("Roberta", pad_token_id=1, eos_token_id=5))
    assert ids.tolist() == [0, 1, 2, 3, 4, 5, 30, 39]
    assert numbers(ids)[[1, 5, 39, 6]].tolist() == [1, 5, 7, -1]


def test_an_embedding_stays_whole_where_cutting_it_gains_nothing_or_is_not_its_own():
    everything = [np.arange(38)]
    assert used_ids(everything, model()) is None
    assert used_ids([np.array([3])], model("Bert", "ForMaskedLM")) is None, "its head has the same weights"
    assert used_ids([np.array([3])], torch.nn.Linear(2, 2)) is None
