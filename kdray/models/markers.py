"""A model folder becomes one with tokens that a task puts into rows: in the tokenizer, and as rows of the embedding.

A token's row begins as the mean of those of words that say what it means. What the folder lacks, such as a head, it
lacks still. Knows nothing about rows of data.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken

from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ModelError
from kdray.models.architecture import input_embedding
from kdray.models.folder import KIND, fingerprint
from kdray.models.load import load_parts, quiet
from kdray.storage import Store, content_key
from kdray.tasks import Task

_LAYOUT = 1


def with_markers(store: Store, task: Task, folder: Path, as_is: bool) -> Path:
    """The folder itself where its tokenizer has the task's markers, else one that has, which is kept in storage.

    Raises ModelError where the model is taken `as_is` and lacks them, or has no table of tokens to add them to.
    """
    vocabulary = load_tokenizer(folder).get_vocab()
    lacks = [marker for marker in task.markers if marker not in vocabulary]
    if not lacks:
        return folder
    if as_is:
        raise ModelError(f"the tokenizer of teacher.model ({folder}) has no {', '.join(lacks)}: the teacher was not "
                         f"trained to read what a {task.name} marks so. Fine-tune it (teacher.finetune), which adds "
                         "them, or take a teacher that was trained with them")
    parent = fingerprint(folder)
    key = content_key({"model": parent, "markers": dict(task.markers), "layout": _LAYOUT})
    if store.manifest(KIND, key) is None:
        with store.staging(KIND) as staged:
            _add(task, folder, lacks, staged)
            store.publish(KIND, key, staged, {"parents": {"model": parent}, "markers": lacks})
    return store.fetch(KIND, key)


def _add(task: Task, folder: Path, markers: list[str], target: Path) -> None:
    """Writes the model in `folder` with the `markers`."""
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([AddedToken(marker, normalized=False, special=True) for marker in markers],
                         special_tokens=True)
    model, drawn = load_parts(task, folder)
    if input_embedding(model) is None:
        raise ModelError(f"{folder}, a {type(model).__name__}, has no table of tokens, to which {', '.join(markers)} "
                         "could be added. Choose a model of another family")
    _set_rows(model, tokenizer, {marker: task.markers[marker] for marker in markers})
    with quiet():
        model.save_pretrained(str(target), state_dict={
            name: weight for name, weight in model.state_dict().items() if name not in drawn})
    tokenizer.save_pretrained(str(target))


@torch.no_grad()
def _set_rows(model: Any, tokenizer: Any, markers: dict[str, str]) -> None:
    """Rows of the `markers` become the mean of their words'; the table grows where it has none for them."""
    ids = tokenizer.convert_tokens_to_ids(list(markers))
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        with quiet():
            model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    table = model.get_input_embeddings().weight
    words = tokenizer(list(markers.values()), add_special_tokens=False)["input_ids"]
    table[ids] = torch.stack([table[of].mean(0) for of in words])
