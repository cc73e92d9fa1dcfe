"""What a folder of sentence-transformers says of pooling becomes plain facts, and such facts the files of a folder.

`modules.json` names the parts that a text goes through: a transformer, a pooling of its tokens, perhaps a dense layer,
perhaps the division by its length. Reads and writes JSON alone: of weights it knows where they are.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.errors import ModelError
from kdray.tasks import Task

MODULES, POOLING, DENSE, LENGTH = "modules.json", "1_Pooling/config.json", "2_Dense", "sentence_bert_config.json"
WEIGHTS = "model.safetensors"
_TYPES = "sentence_transformers.models."
_ORDER = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Dense"])
_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
          "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens":
          "weightedmean", "pooling_mode_lasttoken": "lasttoken"}
"""Names of the ways to pool in folders before version 6, and since."""
_KNOWN = ("mean", "cls")
_REMEDY = "Take a teacher that pools by mean or by its first token ([CLS])"


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling."""

    width: int
    bias: bool
    activation: str
    """Class of torch.nn."""
    weights: str
    """File of its weights; empty where it is new."""


@dataclass(frozen=True)
class Pooling:
    """How the vectors of tokens become that of a text."""

    mode: str
    """mean, or cls: the first token's."""
    width: int
    """Numbers of a token's vector."""
    normalised: bool
    """Whether a vector is divided by its length, at the end."""
    dense: Dense | None = None

    @property
    def dimensions(self) -> int:
        """Numbers of a text's vector."""
        return self.dense.width if self.dense else self.width


def pools(task: Task) -> bool:
    """Whether the task has no head in `transformers`: the vectors of tokens are pooled."""
    return task.auto_class == "AutoModel"


def read_pooling(folder: Path) -> Pooling | None:
    """How the model in `folder` pools, None where it says nothing of it.

    Raises ModelError where it pools in a way that kdray does not know, or a file is not as sentence-transformers
    writes it.
    """
    if not (folder / MODULES).exists():
        return None
    parts = _parts(folder)
    names = [name for name, _ in parts]
    normalised = names[-1:] == ["Normalize"]
    if names[:-1 if normalised else None] not in _ORDER:
        raise ModelError(f"{folder}/{MODULES}: a text goes through {', '.join(names) or 'nothing'}, and kdray knows "
                         "Transformer, Pooling, then perhaps Dense, then perhaps Normalize. Take another teacher")
    pooled = _json(parts[1][1] / "config.json")
    mode, width = _mode(folder, pooled), pooled.get("embedding_dimension", pooled.get("word_embedding_dimension"))
    return Pooling(mode, width, normalised, _dense(parts[2][1]) if "Dense" in names else None)


def must_pool(folder: Path) -> Pooling:
    """The same of a teacher. Raises ModelError where its folder says nothing of it, too."""
    found = read_pooling(folder)
    if found is None:
        raise ModelError(f"{folder} does not say how its vectors are pooled: it has no {MODULES}. Save it with "
                         "sentence-transformers: SentenceTransformer(FOLDER).save(FOLDER)")
    return found


def pooling_files(folder: Path) -> list[Path]:
    """The files that say how the model in `folder` pools, and the weights of that."""
    if not (folder / MODULES).exists():
        return []
    return [folder / MODULES, *sorted(file for _, place in _parts(folder) for name in ("config.json", WEIGHTS)
                                      if place != folder and (file := place / name).exists())]


def copy_pooling(source: Path, target: Path) -> None:
    """Copies these files."""
    for file in pooling_files(source):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def write_pooling(pooling: Pooling, folder: Path) -> None:
    """Writes the files that say so, but for weights."""
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), *([(DENSE, "Dense")] if pooling.dense else []),
             *([("3_Normalize", "Normalize")] if pooling.normalised else [])]
    _write(folder / MODULES, [{"idx": number, "name": str(number), "path": path, "type": _TYPES + kind}
                              for number, (path, kind) in enumerate(parts)])
    _write(folder / POOLING, {"word_embedding_dimension": pooling.width,
                              **{name: mode == pooling.mode for name, mode in list(_MODES.items())[:4]}})
    if pooling.dense:
        _write(folder / DENSE / "config.json", {
            "in_features": pooling.width, "out_features": pooling.dense.width, "bias": pooling.dense.bias,
            "activation_function": f"torch.nn.modules.{_place(pooling.dense.activation)}"})


def write_length(folder: Path, max_length: int) -> None:
    """Has sentence-transformers cut texts at so many tokens."""
    _write(folder / LENGTH, {"max_seq_length": max_length, "do_lower_case": False})


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """What a text goes through: the kind of each part, and its folder."""
    found = _json(folder / MODULES)
    if not isinstance(found, list) or not all(
            isinstance(part, dict) and isinstance(part.get("type"), str) and isinstance(part.get("path"), str)
            for part in found):
        raise ModelError(f"{folder}/{MODULES} is no list of parts, each with a type and a path. Save the model again "
                         "with sentence-transformers")
    return [(part["type"].rpartition(".")[2], folder / part["path"]) for part in found]


def _mode(folder: Path, pooled: dict[str, Any]) -> str:
    given = pooled.get("pooling_mode") or [mode for name, mode in _MODES.items() if pooled.get(name)]
    modes = [given] if isinstance(given, str) else list(given)
    if len(modes) != 1 or modes[0] not in _KNOWN:
        raise ModelError(f"{folder} pools by {' and '.join(map(str, modes)) or 'nothing'}, which kdray does not know. "
                         f"{_REMEDY}")
    return str(modes[0])


def _dense(folder: Path) -> Dense:
    config = _json(folder / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ("Identity", "Tanh") or config.get("use_residual"):
        raise ModelError(f"{folder}: kdray knows dense layers with Identity or Tanh and without a residual, not "
                         f"{activation}. Take another teacher")
    if not (folder / WEIGHTS).exists():
        raise ModelError(f"{folder} has no {WEIGHTS}; kdray reads safetensors only. Save the model again with "
                         "sentence-transformers")
    return Dense(config["out_features"], config.get("bias", True), activation, str(folder / WEIGHTS))


def _place(activation: str) -> str:
    return f"{'linear' if activation == 'Identity' else 'activation'}.{activation}"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise ModelError(f"{file} is not there, which {MODULES} names. Save the model again with sentence-transformers"
                         ) from error
    except ValueError as error:
        raise ModelError(f"{file} is not JSON: {error}") from error


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
