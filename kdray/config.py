"""A YAML file and dotted overrides become one frozen tree of settings.

Knows nothing about Ray, torch or the data: it checks what can be checked from the words alone.
"""

import difflib
import itertools
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kdray.errors import ConfigError, StorageError
from kdray.outputs import Output
from kdray.storage import absolute_uri
from kdray.tasks import TASKS, Task


class Settings(BaseModel):
    """Base of every part of the tree: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


T = typing.TypeVar("T", bound=Settings)
Labels = dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")],
              Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]]
"""Labels of Ray nodes, as `ray start --labels` takes them."""


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in YAML 1.2; PyYAML reads a text where there is no point."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
                              list("-+0123456789"))


PLACES = ("source", "train", "validation", "test", "transfer")
"""Fields of DataConfig that say where rows are."""
OF_DISTILLATION = ("loss", "temperature", "huber_delta", "alpha_schedule", "alpha_end", "temperature_schedule",
                   "temperature_end", "confidence")
"""Fields of TrainingConfig that a student trained without a teacher does not feel, beside alpha."""
_OF_TEMPERATURE = ("temperature", "temperature_schedule", "temperature_end", "confidence")
"""Fields of TrainingConfig that act where the output has a temperature."""
_OF_LABELS = ("alpha", "alpha_schedule", "alpha_end", "finetune")
"""Fields of TrainingConfig that act where there are hard labels."""
PLAIN = TASKS["sequence-classification"]
_NOT_SEARCHED = {
    **dict.fromkeys(("accumulation", "workers", "num_cpus", "num_gpus", "labels", "checkpoint_steps", "max_failures",
                     "deepspeed.zero_optimization"),
                    "it is how a student is trained, not what it learns. Set training.{name}"),
    "precision": "it is the device's arithmetic, one for all trials. Set training.{name}",
    "patience": "who stops early can only miss a better epoch, so the longest would be best. Set training.{name}",
    "seed": "the best seed is chance. To see how far chance goes, set search.seeds",
}
"""Fields of TrainingConfig that a search could only pretend to choose, and why."""


class DataConfig(Settings):
    """Where the rows come from, and how they are cut and tokenised."""

    source: str | None = Field(None, description="All rows in one place: a path, glob or URI of CSV, TSV, JSON, "
                               "Parquet or CoNLL columns; a hub dataset or a folder of one; or "
                               "package:MODULE:FUNCTION, which is called")
    train: str | None = Field(None, description="The training split: a source of its own; or, beside `source`, the "
                              "name of a split there")
    validation: str | None = Field(None, description="The validation split, likewise; cut from train where missing")
    test: str | None = Field(None, description="The test split, likewise; cut from train where missing")
    transfer: str | None = Field(None, description="Rows without labels, beside `source` or `train`: the teacher says "
                                 "what they are, and distilled students train on them too")
    phrases: int = Field(0, ge=0, description="Phrases that each training row gives to the rows without labels: random "
                         "runs of its words (of tokens, in scripts without spaces), a fifth of which give way to "
                         "random words of the teacher's vocabulary")
    subset: str | None = Field(None, description="Name of a hub dataset's configuration")
    arguments: dict[str, Any] = Field({}, description="Keyword arguments for package:MODULE:FUNCTION")
    path: str | None = Field(None, description="Where a JSON document has its rows: keys with dots between")
    columns: dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]] = Field(
        {}, description="Task column: name of that column in the data; its number, from 0, where there are no names")
    separator: str | None = Field(None, min_length=1, description="What stands between the labels of a row, where a "
                                  "text holds several; null where they are lists")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of rows cut off for validation")
    test_share: float = Field(0.1, gt=0, lt=1, description="Share of rows cut off for test")
    seed: int = Field(0, description="Seed of the stratified cut")
    max_length: int = Field(128, ge=4, description="Tokens a row at most; longer rows are truncated")

    @model_validator(mode="after")
    def _one_origin(self) -> "DataConfig":
        if self.source is None and self.train is None:
            raise ValueError("give `source` (all rows) or `train`")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Where rows are, by split or as `source`, beside which the other fields name splits of it."""
        names = PLACES[1:] if self.source is None else ("source", "transfer")
        return {name: place for name in names if (place := getattr(self, name)) is not None}


class Optimisation(Settings):
    """How weights are fitted: the same words for the teacher and for students."""

    epochs: int = Field(3, ge=1, description="Passes over the training split")
    lr: float = Field(5e-5, gt=0, description="Peak learning rate of AdamW")
    batch_size: int = Field(32, ge=1, description="Rows an optimizer step, over all workers")
    accumulation: int = Field(1, ge=1, description="Micro-batches that a worker cuts its rows of a step into")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises")
    decay: Literal["linear", "cosine", "constant"] = Field("linear", description="Fall of the rate after warm-up")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW")
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 leaves gradients alone")
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout while training; null keeps the model's own")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the forward and backward pass; auto is bfloat16 where the device has it, "
        "and stays in `storage` what it was when it was first asked for with these data")
    patience: int | None = Field(None, ge=1, description="Epochs without a better validation metric before the stop")
    seed: int = Field(0, description="Seed of initial weights, batches and dropout")
    workers: int = Field(1, ge=1, description="Ray Train workers that share each step")
    num_cpus: float | None = Field(None, gt=0, description="CPUs a worker; null takes all for one run, 1 in a sweep")
    num_gpus: float = Field(0, ge=0, description="GPUs a worker")
    labels: Labels = Field({}, description="Labels that a worker's node must have, as ray start --labels set them")
    deepspeed: dict[str, Any] = Field({}, description="DeepSpeed options, passed through as they are")
    checkpoint_steps: int | None = Field(None, ge=1, description="Steps between checkpoints within an epoch")
    max_failures: int = Field(2, ge=0, description="Restarts from the last checkpoint before a run is given up")

    @field_validator("deepspeed")
    @classmethod
    def _owned_elsewhere(cls, options: dict[str, Any]) -> dict[str, Any]:
        owned = {"train_batch_size": "batch_size", "train_micro_batch_size_per_gpu": "batch_size",
                 "gradient_accumulation_steps": "accumulation", "gradient_clipping": "clip",
                 "bf16": "precision", "fp16": "precision", "torch_autocast": "precision"}
        for name in sorted(owned.keys() & options.keys()):
            raise ValueError(f"`{name}` follows from `{owned[name]}`; set that instead")
        return options


class TeacherConfig(Settings):
    """The large model, and the actors that run it."""

    model: str = Field(description="Hub id, local folder, or package:MODULE:FOLDER")
    revision: str | None = Field(None, description="Revision of a hub id")
    finetune: Optimisation | None = Field(None, description="Fine-tune on the hard labels first; null takes it as is")
    dimensions: int | None = Field(None, ge=1, description="Numbers of a vector, where the teacher gives vectors: to "
                                   "their principal directions over texts of train (PCA) they are cut before students "
                                   "learn them; null leaves them as they are")
    actors: int = Field(1, ge=1, description="Teacher actors at most")
    min_actors: int | None = Field(None, ge=1, description="Actors that must fit the cluster before work starts; the "
                                   "rest start when nodes join. null: all of them")
    num_cpus: float | None = Field(None, gt=0, description="CPUs an actor; null shares the cluster's among the actors")
    num_gpus: float = Field(0, ge=0, description="GPUs an actor")
    labels: Labels = Field({}, description="Labels that an actor's node must have, such as {kdray/group: teacher}")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the teacher; auto is bfloat16 where the device has it, and stays in "
        "`storage` what it was when it was first asked for with these data")
    batch_tokens: int = Field(2048, ge=16, description="Padded tokens a batch at most")
    compile: bool = Field(False, description="torch.compile the teacher: 10 to 40 s an actor at the start, then about "
                          "1.2 times the rows/s. Needs a C++ compiler on every node")
    max_attempts: int = Field(3, ge=1, description="Tries at one shard before the run stops with its rows")
    live: bool = Field(False, description="Run the teacher in every training step of every student instead of once "
                       "into a cache: for data that change every epoch")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_actors is not None and self.min_actors > self.actors:
            raise ValueError(f"min_actors {self.min_actors} is more than actors {self.actors}")
        return self


class CacheConfig(Settings):
    """How soft targets are stored."""

    rows_per_shard: int = Field(1024, ge=1, description="Rows an Arrow shard")
    codec: Literal["auto", "float32", "float16", "int8"] = Field(
        "auto", description="How logits are stored; auto is float16 for token-classification, question-answering and "
        "sentence-embedding, else float32. The manifest says what it costs")
    compression: Literal["none", "zstd"] = Field(
        "none", description="zstd is smaller in storage, but read into memory instead of mapped")
    ensemble: list[str] = Field([], description="Keys of other caches of the same rows, read together with this one "
                                "(kdray cache ls)")
    weights: list[float] | None = Field(None, description="Weight of this cache and of each of `ensemble`; null weighs "
                                        "them equally")
    mean: Literal["logits", "probabilities"] = Field(
        "logits", description="What an ensemble averages: logits, or probabilities at the trial's temperature")

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        if self.weights is not None and len(self.weights) != 1 + len(self.ensemble):
            raise ValueError(f"weights {self.weights} must be {1 + len(self.ensemble)} numbers: this cache's, then one "
                             "for each of ensemble")
        if self.weights is not None and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError(f"weights {self.weights} must be 0 or more, and not all 0")
        return self


class StudentConfig(Settings):
    """The small model: cut, loaded, or fresh, of the teacher or of another model."""

    layers: int | list[int] | None = Field(None, description="Layers to keep of the teacher, or of `model`: a number "
                                           "(evenly spaced, first and last kept) or their indices from 0")
    model: str | None = Field(None, description="Hub id, local folder, or package:MODULE:FOLDER to start from, "
                              "whole or beside `layers` or `fresh`")
    fresh: dict[str, Any] | None = Field(None, description="Random weights: the teacher's config, or `model`'s, with "
                                         "these changes")
    training: dict[str, Any] = Field({}, description="Fields of `training` that are this student's own, such as lr")

    @model_validator(mode="after")
    def _one_origin(self) -> "StudentConfig":
        if self.layers is not None and self.fresh is not None:
            raise ValueError("give `layers` (weights that are there) or `fresh` (random ones), and not both")
        if self.layers is None and self.fresh is None and self.model is None:
            raise ValueError("give one of `layers`, `model`, `fresh`; `model` may be beside either of the others")
        if (isinstance(self.layers, int) and self.layers < 1) or self.layers == []:
            raise ValueError("`layers` must keep at least one layer")
        return self


class HardLabelStage(Settings):
    """A last stage on the hard labels alone, kept only if validation improves."""

    epochs: int = Field(1, ge=1, description="Passes over the training split")
    lr: float = Field(1e-5, gt=0, description="Peak learning rate of AdamW")


class TrainingConfig(Optimisation):
    """How students are distilled: loss = alpha * task_loss + (1 - alpha) * distillation loss."""

    epochs: int = Field(4, ge=1, description="Passes over the training split")
    lr: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW")
    loss: Literal["kl", "mse", "huber", "annealing", "cosine", "similarity"] = Field(
        "kl", description="Distillation loss on the logits, of numbers half their squared distance; annealing is mse "
        "to a share of the teacher's logits that grows as the temperature falls to 1, best with alpha 0 and "
        "`finetune`. Embeddings: cosine, and similarity, the kl of softmax(cosine / T) over the others in the batch")
    temperature: float = Field(2.0, gt=0, description="Softening of teacher and student in the KL loss, at the start "
                               "where it changes; where annealing starts")
    temperature_end: float | None = Field(None, gt=0, description="Temperature at the last step of the distillation; "
                                          "null keeps it (annealing: 1)")
    temperature_schedule: Literal["constant", "linear", "cosine"] | None = Field(
        None, description="How the temperature gets to its end; null is linear")
    alpha: float = Field(0.5, ge=0, le=1, description="Weight of the hard labels: 1 is plain fine-tuning, whatever "
                         "else is set, 0 is pure distillation")
    alpha_end: float | None = Field(None, ge=0, le=1, description="Alpha at the last step of the distillation; null "
                                    "keeps it")
    alpha_schedule: Literal["constant", "linear", "cosine"] | None = Field(
        None, description="How alpha gets to its end; null is linear")
    confidence: Literal["temperature", "weight"] | None = Field(
        None, description="What the teacher's confidence in a target sets: temperature, from 1 where it guesses to "
        "`temperature` where it is sure, or weight of the distillation loss, from 0 to 1")
    huber_delta: float = Field(1.0, gt=0, description="Where the Huber loss turns from squared to linear")
    finetune: HardLabelStage | None = Field(None, description="Last stage on the hard labels; null leaves it out")

    @model_validator(mode="after")
    def _scheduled(self) -> Self:
        if self.alpha_schedule in ("linear", "cosine") and self.alpha_end is None:
            raise ValueError(f"alpha_schedule {self.alpha_schedule} needs alpha_end, the value at the last step")
        falls = self.temperature_end is not None or self.loss == "annealing"
        if self.temperature_schedule in ("linear", "cosine") and not falls:
            raise ValueError(f"temperature_schedule {self.temperature_schedule} needs temperature_end, the value at "
                             "the last step")
        return self

    @model_validator(mode="after")
    def _temperature_matters(self) -> Self:
        if self.loss == "annealing" and self.temperature < 1:
            raise ValueError(f"temperature {self.temperature} must be 1 or more for loss annealing, which ends at 1")
        if self.loss in ("mse", "huber", "cosine") and self.temperature_end is not None:
            raise ValueError(f"temperature_end {self.temperature_end}: loss {self.loss} has no temperature; take kl or "
                             "annealing")
        if self.loss != "kl" and self.confidence == "temperature":
            raise ValueError(f"confidence temperature needs loss kl, not {self.loss}; confidence weight goes with all")
        return self

    @property
    def total_epochs(self) -> int:
        """Epochs of the distillation and of the last stage."""
        return self.epochs + (self.finetune.epochs if self.finetune else 0)

    @property
    def one_temperature(self) -> bool:
        """Whether every target is distilled at the same temperature, from the first step to the last."""
        moves = self.temperature_schedule != "constant" and (self.temperature_end is not None
                                                             or self.loss == "annealing")
        return self.confidence != "temperature" and not moves


class Domain(Settings):
    """What the sweep searches of one field: an interval, or a few values."""

    min: float | None = Field(None, description="Smallest value of an interval")
    max: float | None = Field(None, description="Largest value of an interval")
    log: bool = Field(False, description="Whether to search the logarithm")
    values: list[Any] | None = Field(None, min_length=1, description="The values to choose from")

    @model_validator(mode="after")
    def _interval_or_values(self) -> "Domain":
        if self.values is not None:
            if self.min is not None or self.max is not None:
                raise ValueError("give either min and max, or values")
            return self
        if self.min is None or self.max is None:
            raise ValueError("give min and max, or values")
        if not self.min < self.max:
            raise ValueError(f"min {self.min} must be below max {self.max}")
        if self.log and self.min <= 0:
            raise ValueError(f"a logarithmic interval must be above 0, min is {self.min}")
        return self


_SPACE = {"temperature": Domain(min=1, max=8, log=True), "alpha": Domain(min=0, max=0.9)}


class SearchConfig(Settings):
    """The sweep over students."""

    algorithm: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="tpe learns from the trials before; grid takes every combination of `values`, not `trials`")
    trials: int = Field(8, ge=1, description="Trials of each student, its baselines aside")
    space: dict[str, Domain] | None = Field(
        None, description="Field of `training`: what to search, as {min, max, log} or {values}. What a student without "
        "a teacher feels too, such as lr, is searched for the baseline as well. null: temperature from 1 to 8, log, "
        "where the loss has one, and alpha from 0 to 0.9")
    metric: str | None = Field(None, description="Validation metric that picks the winner; null takes the task's")
    max_concurrent: int | None = Field(None, ge=1, description="Trials side by side; null fills the cluster, as far as "
                               "the next trial may start: each knows how all but the last quarter before it ended")
    time_budget: float | None = Field(None, gt=0, description="Seconds after which trials that run are stopped and "
                                      "the best is taken of those that finished; `seeds` come on top")
    grace: int = Field(1, ge=1, description="Epochs before a trial may be stopped; later ones are judged at 2, 4, 8 "
                       "times as many, against others when as large a share of their epochs was done")
    seed: int = Field(0, description="Seed of the search")
    seeds: int = Field(1, ge=1, description="Seeds that the sweep has not seen, on which the student of the best trial "
                       "and its baseline are trained in pairs: winner and baseline are the best of these on "
                       "validation. The gain of distillation is measured on all of them; 3 or more say how far chance "
                       "goes")
    max_ms: float | None = Field(None, gt=0, description="Milliseconds that one text may take with the winner as "
                                 "served, on this machine")
    max_mb: float | None = Field(None, gt=0, description="Megabytes of the winner's file as served")
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        ["tensorboard"], description="What else keeps the trials. mlflow asks for MLFLOW_TRACKING_URI, wandb for "
        "WANDB_API_KEY or WANDB_MODE=offline in the environment")

    @model_validator(mode="after")
    def _listed(self) -> Self:
        open_ended = [name for name, domain in self._whole.items() if domain.values is None]
        if self.algorithm == "grid" and open_ended:
            raise ValueError(f"space.{open_ended[0]} is an interval: algorithm grid needs `values`")
        return self

    def searched(self, training: TrainingConfig, task: Task = PLAIN) -> dict[str, Domain]:
        """What of the space a student of the task with such a `training` feels."""
        return {name: domain for name, domain in self._whole.items() if not self.idle(name, training, task)}

    def idle(self, name: str, training: TrainingConfig, task: Task = PLAIN) -> str:
        """Why the field `name` changes nothing beside the rest of the space and of `training`; empty where it does."""
        tempered = task.output.tempered
        if name in _OF_TEMPERATURE and (not tempered or (name == "confidence" and not task.output.sure)):
            return "numbers have no temperature, and nothing of their teacher's confidence is known"
        if name.partition(".")[0] in _OF_LABELS and not task.labelled:
            return f"{task.name} has no hard labels, whose weight it would be"
        fixed = {field: value for field, value in training.model_dump().items() if field not in self._whole}
        if name in OF_DISTILLATION and fixed.get("alpha") == 1:
            return "training.alpha is 1, so nothing is distilled"
        schedule = name.replace("_end", "_schedule")
        if name != schedule and fixed.get(schedule) == "constant":
            return f"training.{schedule} is constant, so there is no end"
        losses = [fixed["loss"]] if "loss" in fixed else self._whole["loss"].values or []
        of_loss = {"huber_delta": ("huber",), **dict.fromkeys(_OF_TEMPERATURE[:-1], tempered)}
        if name in of_loss and not any(loss in of_loss[name] for loss in losses):
            return f"loss {', '.join(map(str, losses))} does not use it"
        return ""

    @property
    def _whole(self) -> dict[str, Domain]:
        return _SPACE if self.space is None else self.space


class ExportConfig(Settings):
    """How good the files must be that serve the winner."""

    max_drop: float = Field(0.005, ge=0, description="Loss of the metric on validation, ONNX int8 against PyTorch, "
                            "above which, unless it is chance, a gentler int8 is taken, then float32")


class TeacherServing(Settings):
    """The teacher beside the students."""

    num_cpus: float = Field(1, ge=0, description="CPUs for the teacher")
    num_gpus: float = Field(0, ge=0, description="GPUs for the teacher")
    shadow: float = Field(0.0, ge=0, le=1, description="Share of the requests that the teacher sees too, to measure "
                          "how far it agrees; answers do not wait for it")
    cascade: float | None = Field(None, gt=0, le=1, description="Let the teacher answer where the student is unsure, "
                                  "so that together they have this share of the teacher's right rows (validation)")
    keep: str | None = Field(None, description="Folder on the teacher's machine for inputs of the shadow on which they "
                             "differ: data of a later run. These are texts of requests")
    keep_mib: float = Field(16, gt=0, description="MiB of `keep` at most; the oldest go first")


class ServeConfig(Settings):
    """The HTTP endpoint."""

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on")
    keys: str | None = Field(None, description="File with API keys or their digests (sha256:HEX), one a line; "
                             "KDRAY_API_KEYS, with commas between, adds to them. Without any, everybody who reaches "
                             "the port may ask")
    open: bool = Field(False, description="Listen beyond this machine without API keys")
    backend: Literal["auto", "onnx-int8", "onnx", "openvino-int8", "openvino", "torch"] = Field(
        "auto", description="auto is torch on a GPU, else onnx-int8 where it is as good as the student, else onnx "
        "(kdray bench measures them)")
    replicas: int = Field(1, ge=1, description="Copies of the service; with max_replicas, the fewest")
    max_replicas: int | None = Field(None, ge=1, description="Copies at most when all are busy; null keeps to "
                                     "`replicas`")
    num_cpus: float = Field(1, ge=0, description="CPUs a replica")
    num_gpus: float = Field(0, ge=0, description="GPUs a replica")
    batch_tokens: int = Field(1024, ge=16, description="Padded tokens a batch at most")
    max_queue: int = Field(128, ge=1, description="Inputs of up to 32 tokens that may wait or run at a replica, longer "
                           "ones counting more; beyond, requests get a 503")
    deadline: float = Field(10.0, gt=0, description="Seconds after which a request gets a 504")
    max_body: int = Field(2**20, ge=1024, description="Bytes of a request's body at most")
    max_texts: int = Field(128, ge=1, description="Inputs of a request at most")
    max_bulk: int = Field(4096, ge=1, description="Inputs of a request to /v1/predict at most")
    max_characters: int = Field(20_000, ge=1, description="Characters of an input at most")

    cors: list[str] = Field([], description="Origins whose pages a browser lets ask, such as https://example.com; '*' "
                            "is all")

    teacher: TeacherServing | None = Field(None, description="The teacher of the default student beside it; null "
                                           "serves without")
    students: dict[str, str] = Field({}, description="Name: run of a further student in the same service")

    @field_validator("students")
    @classmethod
    def _named(cls, students: dict[str, str]) -> dict[str, str]:
        for name in students:
            if name == "default" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"{name!r} cannot be a student's name: letters, digits, dots, dashes, not 'default'")
        return students

    def changed(self, overrides: list[str]) -> "ServeConfig":
        """A copy with overrides such as `port=8001`, checked like the whole. Raises ConfigError."""
        tree: dict[str, Any] = {}
        for override in overrides:
            _override(tree, override.removeprefix("serve."))
        return changed(self, tree)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than replicas {self.replicas}")
        return self


class Config(Settings):
    """Everything that one run needs."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run")
    storage: str = Field("~/kdray", validate_default=True, description="Folder or URI (s3://, gs://) of all artefacts")
    task: str = Field("sequence-classification", description="What the models do: " + " or ".join(TASKS))
    data: DataConfig
    teacher: TeacherConfig
    cache: CacheConfig = CacheConfig()
    student: StudentConfig | None = Field(None, description="The student; null is layers: 2, "
                                          "or what `students` has")
    students: dict[str, StudentConfig] = Field({}, description="Name: a student. Several are searched in one sweep")
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(f"unknown task {name!r}; there are {', '.join(TASKS)}")
        return name

    @field_validator("storage")
    @classmethod
    def _absolute(cls, uri: str) -> str:
        try:
            return absolute_uri(uri)
        except StorageError as error:
            raise ValueError(str(error)) from error

    @field_validator("students")
    @classmethod
    def _named(cls, students: dict[str, StudentConfig]) -> dict[str, StudentConfig]:
        for name in students:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"{name!r} cannot be a student's name: letters, digits, dots, dashes")
        return students

    @property
    def family(self) -> dict[str, StudentConfig]:
        """Every student by name; `student` alone is called so."""
        return self.students or {"student": self.student or StudentConfig(layers=2)}

    @model_validator(mode="after")
    def _parts_agree(self) -> "Config":
        if self.students and self.student:
            raise ValueError("give either `student` or `students`, and not both")
        for name, student in self.family.items():
            self._check_own_training(name, student)
        task = TASKS[self.task]
        for column in self.data.columns:
            if column not in task.columns:
                raise ValueError(f"data.columns: {self.task} has no column {column!r}, only {', '.join(task.columns)}")
        if self.search.metric not in (None, *task.metrics):
            raise ValueError(f"search.metric: {self.task} has no metric {self.search.metric!r}, "
                             f"only {', '.join(task.metrics)}")
        if self.teacher.dimensions and task.shown != "vectors":
            raise ValueError(f"teacher.dimensions: a teacher of {self.task} gives no vectors. Leave it out")
        self._check_labelled()
        self._check_tempered()
        self._check_soft_targets("training", self.training)
        for name, domain in (self.search.space or {}).items():
            self._check_searched(name, domain)
        self._check_losses()
        return self

    def _check_own_training(self, name: str, student: StudentConfig) -> None:
        at = f"students.{name}" if self.students else "student"
        for field, value in student.training.items():
            try:
                changed(self.training, {field: value})
            except ConfigError as error:
                raise ValueError(f"{at}.training.{error}") from error

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_weigh(cls, tree: Any) -> Any:
        """Where there are no hard labels, alpha is 0 unless something else is asked for."""
        task = TASKS.get(str(tree.get("task"))) if isinstance(tree, dict) else None
        given = tree.get("training") or {} if task else None
        if task is None or task.labelled or not isinstance(given, dict):
            return tree
        return {**tree, "training": {"alpha": 0.0, **given}}

    def _check_labelled(self) -> None:
        """Refuses what needs hard labels where there are none."""
        if TASKS[self.task].labelled:
            return
        why = f"{self.task} has no hard labels"
        for student in self.family.values():
            training = changed(self.training, student.training)
            for field in _OF_LABELS:
                if value := getattr(training, field):
                    raise ValueError(f"training.{field} = {value}: {why}, all is learned from the teacher. Leave it "
                                     "out")
        if self.teacher.finetune is not None:
            raise ValueError(f"teacher.finetune: {why} to fine-tune on. Take a teacher whose vectors are good as they "
                             "are")
        if self.teacher.live:
            raise ValueError(f"teacher.live: {why}, so students are measured against their teacher's answers, which "
                             "must be in a cache. Leave it out")

    def _check_tempered(self) -> None:
        """Refuses losses that the task's output has not, and what needs a temperature or a confidence that it lacks."""
        output = TASKS[self.task].output
        for student in self.family.values():
            training = changed(self.training, student.training)
            if field := _lacking(training, output):
                why = ("has no temperature" if not output.tempered else "has no such loss" if field == "loss" else
                       f"has a temperature in the loss {' and '.join(output.tempered)} alone")
                raise ValueError(f"training.{field} = {getattr(training, field)}: {self.task} {why}. Leave it out; its "
                                 f"losses are {', '.join(output.losses)}")
        if output.sure:
            return
        if self.cache.mean == "probabilities" and self.cache.ensemble:
            raise ValueError(f"cache.mean probabilities: {self.task} has none. Take logits")
        if self.serve.teacher and self.serve.teacher.cascade is not None:
            raise ValueError(f"serve.teacher.cascade: {self.task} does not say how sure it is")

    def _check_losses(self) -> None:
        """Refuses a search among losses that the task's output has not."""
        output = TASKS[self.task].output
        searched = (self.search.space or {}).get("loss", Domain(values=["kl"])).values or []
        if other := [loss for loss in searched if loss not in output.losses]:
            raise ValueError(f"search.space.loss: {self.task} has no loss {other[0]}, only {', '.join(output.losses)}")

    def _check_searched(self, name: str, domain: Domain) -> None:
        for field, reason in _NOT_SEARCHED.items():
            if f"{name}.".startswith(f"{field}."):
                raise ValueError(f"search.space.{name}: {reason.format(name=field)}")
        trainings = [changed(self.training, student.training) for student in self.family.values()]
        task = TASKS[self.task]
        feeling = [training for training in trainings if not self.search.idle(name, training, task)]
        if not feeling:
            raise ValueError(f"search.space.{name}: {self.search.idle(name, trainings[0], task)}. Leave it out")
        for training, value in itertools.product(feeling, domain.values or [domain.min, domain.max]):
            try:
                self._check_soft_targets(f"search.space.{name}", changed(training, {name: value}))
            except ConfigError as error:
                raise ValueError(f"search.space.{error}") from error

    def _check_soft_targets(self, origin: str, training: TrainingConfig) -> None:
        """An ensemble is of caches, and its mean of probabilities is taken at one temperature, before the loss."""
        if self.cache.ensemble and self.teacher.live:
            raise ValueError(f"cache.ensemble {self.cache.ensemble} averages caches, and teacher.live has none; leave "
                             "one of them out")
        if self.cache.ensemble and self.cache.mean == "probabilities" and not training.one_temperature:
            raise ValueError(f"{origin}: cache.mean probabilities is taken at one temperature, so temperature_end, "
                             "loss annealing and confidence temperature need cache.mean logits")

    @property
    def metric(self) -> str:
        """Name of the validation metric that picks the winner."""
        return self.search.metric or TASKS[self.task].metrics[0]


def _lacking(training: TrainingConfig, output: Output) -> str | None:
    """The field of `training` that the output has nothing for, None where there is no such field."""
    if training.loss not in output.losses:
        return "loss"
    if output.sure:
        return None
    fields = ("confidence",) if training.loss in output.tempered else _OF_TEMPERATURE[1:]
    return next((field for field in fields if getattr(training, field) is not None), None)


def load(path: str | Path, overrides: list[str] | None = None) -> Config:
    """The config in the YAML file at `path`, changed by overrides such as `training.lr=1e-4`.

    From then on, modules beside the file are found (`package:MODULE:FUNCTION`), behind all others of the same name.
    Raises ConfigError that names the file, the key and the nearest known key.
    """
    try:
        tree = yaml.load(Path(path).read_text(), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"no config file {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, found {type(tree).__name__}")
    for override in overrides or []:
        _override(tree, override)
    if (folder := str(Path(path).resolve().parent)) not in sys.path:
        sys.path.append(folder)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], origin: str) -> Config:
    """`tree` as a Config. Raises ConfigError; `origin` says where the tree came from."""
    return typing.cast(Config, _validated(Config, tree, origin))


def changed(settings: T, changes: dict[str, Any]) -> T:
    """A copy of `settings` with dotted `changes`, checked like the whole. Raises ConfigError that begins with them."""
    tree = settings.model_dump()
    for name, value in changes.items():
        _assign(tree, name.split("."), value)
    return typing.cast(T, _validated(type(settings), tree, ", ".join(changes)))


def dump(config: Settings) -> str:
    """The resolved settings as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def explain(model: type[Settings] = Config, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Each field as (dotted name, default, one-line description), in the order of the tree."""
    for name, field in model.model_fields.items():
        part = _settings_type(field.annotation)
        if part is not None and not field.description:
            yield from explain(part, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else yaml.safe_dump(
            _plain(field.default), default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        yield f"{prefix}{name}", default, field.description or ""
        if part is not None:
            yield from explain(part, f"{prefix}{name}.")


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def hint(name: str, known: Iterable[str], path: Iterable[str] = ()) -> str:
    """What may have been meant by `name`, below `path`; all that is `known` where nothing is near it."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {'.'.join([*path, near[0]])!r}?" if near else f"known are {', '.join(names)}"


def _settings_type(annotation: Any) -> type[Settings] | None:
    options = _options(annotation)
    return next((option for option in options if isinstance(option, type) and issubclass(option, Settings)), None)


def _value_type(annotation: Any) -> type[Settings] | None:
    """The settings that a mapping of free names holds."""
    mapping = next((option for option in _options(annotation) if typing.get_origin(option) is dict), None)
    return _settings_type(typing.get_args(mapping)[1]) if mapping else None


def _options(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"override {override!r} must look like training.lr=1e-4")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value") from error
    _assign(tree, name.split("."), value)


def _assign(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for part in parents:
        if tree.get(part) is None:
            tree[part] = {}
        tree = tree[part]
        if not isinstance(tree, dict):
            raise ConfigError(f"{'.'.join(path)}: `{part}` is a single value, it has no parts")
    tree[last] = value


def _validated(model: type[Settings], tree: dict[str, Any], origin: str) -> Settings:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_complaint(model, item) for item in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(dict.fromkeys(lines))) from None


def _complaint(model: type[Settings], item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    where = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {hint(path[-1], _known_keys(model, path[:-1]), path[:-1])}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{where} is required"
    if item["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} = {item['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(model: type[Settings], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        model = (field and (_settings_type(field.annotation) or _value_type(field.annotation))) or model
    return list(model.model_fields)
