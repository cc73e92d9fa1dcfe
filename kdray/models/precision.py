"""The words of `precision` become a dtype that the device is good at; other choices that follow from the device."""

import json
from collections.abc import Callable

import torch

from kdray.errors import StorageError
from kdray.storage import Store, content_key

KIND = "precisions"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(precision: str, num_gpus: float = 0) -> str:
    """`auto` becomes bfloat16 on a GPU and on a processor with bfloat16 instructions, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if num_gpus or has_bfloat16() else "float32"


def has_bfloat16() -> bool:
    """Whether this machine's processor has bfloat16 instructions."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def kept_precision(store: Store, corpus: str, who: str, native: Callable[[], bool]) -> str:
    """What `auto` is on processors for `who` works with the corpus: as it was the first time, wherever this runs.

    The keys of what is made have it in them: a driver with another processor would start over. `native` says whether
    the processors that will work have bfloat16 instructions, and is asked the first time only. Raises StorageError
    where storage has something else.
    """
    path = KIND, f"{content_key([corpus, who])}.json"
    try:
        found = json.loads(store.read(*path))["precision"]
        if found in DTYPES:
            return found
    except FileNotFoundError:
        chosen = "bfloat16" if native() else "float32"
        store.write(json.dumps({"corpus": corpus, "who": who, "precision": chosen}, indent=1).encode(), *path)
        return chosen
    except (ValueError, KeyError, TypeError):
        pass
    raise StorageError(f"{store.uri_of(*path)} does not say what precision auto is. Delete it, or set the precision")


def device(num_gpus: float) -> torch.device:
    """The device that a process with `num_gpus` works on."""
    return torch.device("cuda" if num_gpus else "cpu")


def attention(num_gpus: float) -> str | None:
    """The implementation of attention that every model is built with, as fast as the device and its class allow.

    On a CPU that is eager, 1.2 times sdpa's rows/s at short lengths: there, sdpa's fused kernels take neither dropout
    nor a mask, and in ONNX it adds a check for NaN and slices to each layer. On a GPU, None leaves it to
    `transformers`: sdpa where the class has it, else eager.
    """
    return None if num_gpus else "eager"
