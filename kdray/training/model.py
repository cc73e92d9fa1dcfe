"""A job becomes the model that is trained, its embedding cut to the tokens of its rows, and the artefact of the whole.

Knows nothing about stages, steps or workers.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import numpy as np

from kdray.corpus.rows import Ragged
from kdray.models.dropout import quicken_dropout
from kdray.models.folder import at
from kdray.models.load import build, count_parameters, save_model
from kdray.models.precision import device
from kdray.models.vocabulary import cut_vocabulary, numbers, used_ids, whole_vocabulary
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.training.job import TrainingJob
from kdray.training.state import State, Weights


class JobModel:
    """How the model of a job is made, on this machine."""

    def __init__(self, job: TrainingJob):
        self.job, self.task = job, TASKS[job.task]
        self.origin = replace(job.origin, folder=str(at(job.origin.folder)))
        self.ids: np.ndarray | None = None
        """Token ids that the rows have, where the embedding is cut to them."""

    def to_train(self, columns: Sequence[Ragged], best: Weights | None) -> Any:
        """The model with its first weights, or the `best`; `columns` of ids get its numbers for them."""
        on = device(self.job.settings["num_gpus"])
        model = self._built(self.job.settings["num_gpus"])
        self.ids = used_ids(chain(*(column.parts() for column in columns)), model)
        if self.ids is not None:
            cut_vocabulary(model, self.ids)
            places = numbers(self.ids)
            for column in columns:
                column.numbers = places
        if on.type == "cpu":
            quicken_dropout(model)
        if best is not None:
            model.load_state_dict(best)
        return model.to(on)

    def whole(self, weights: Weights) -> Any:
        """The model with these weights and its whole embedding, on the CPU."""
        model = self._built(0)
        if self.ids is None:
            model.load_state_dict(weights)
        else:
            whole = cut_vocabulary(model, self.ids)
            model.load_state_dict(weights)
            whole_vocabulary(model, self.ids, whole)
        return model

    def _built(self, num_gpus: float) -> Any:
        settings = self.job.settings
        return build(self.task, self.origin, list(self.job.labels), settings["seed"], num_gpus, settings["dropout"])


def publish(store: Store, job: TrainingJob, model: Any, state: State, seconds: float) -> None:
    """Publishes the trained model under the job's key; `seconds` are what its training took."""
    task = TASKS[job.task]
    best = next(entry for entry in state.history if entry["epoch"] == state.best_epoch)
    live = {"teacher": job.live.fingerprint} if job.live else {}
    with store.staging(job.kind) as folder:
        save_model(task, model, at(job.tokenizer), folder)
        store.publish(job.kind, job.key, folder, {
            "parents": {"corpus": job.corpus, "cache": job.cache, **live, "origin": job.origin_fingerprint},
            "origin": asdict(job.origin), "task": job.task, "labels": list(job.labels), "settings": job.settings,
            "precision": job.precision, "metric": job.metric,
            "validation": {name: best[name] for name in task.metrics if name in best},
            **({"threshold": best["threshold"]} if "threshold" in best else {}), "best_epoch": state.best_epoch,
            "history": state.history, "parameters": count_parameters(model), "seconds": round(seconds, 3),
            "first_step": state.first_step})
