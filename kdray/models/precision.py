"""The words of `precision` become a dtype that the device is good at; other choices that follow from the device."""

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(precision: str, num_gpus: float = 0) -> str:
    """`auto` becomes bfloat16 on a GPU and on a processor with bfloat16 instructions, else float32."""
    if precision != "auto":
        return precision
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if num_gpus or native else "float32"


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
