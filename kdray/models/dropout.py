"""A model's dropouts become ones that a CPU draws in less than a third of the time.

torch draws a number for each element on a CPU, here 16 of a number's bits do; a GPU needs none of it.
"""

from functools import cache

import torch
from torch import Tensor, nn

_DRAWS = 2**16


class Dropout(nn.Dropout):
    """Srivastava et al. 2014, as torch.nn.Dropout but for the rate: the nearest whose scale the dtype can tell."""

    def forward(self, input: Tensor) -> Tensor:
        """Zeroes elements at the rate and scales the others, so that the mean stays; from torch's default generator."""
        kept, scale = _chance(self.p, input.dtype)
        if not self.training or not 0 < kept < _DRAWS:
            return super().forward(input)
        count = input.numel()
        drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-2**63, None).view(torch.int16)
        last = _DRAWS // 2 - kept - 1  # of the draws that drop
        # 0 up to `last`, 1 above, without booleans: a CPU compares and converts those far more slowly.
        ones = drawn[:count].view(input.shape).clamp_(last, last + 1).sub_(last)
        return input * ones.to(input.dtype).mul_(scale)


@cache
def _chance(rate: float, dtype: torch.dtype) -> tuple[int, float]:
    """How many of 65536 draws keep an element, and the scale of what is kept: together 1, to 1 in 131072.

    bfloat16 tells scales 1/128 apart: of 0.1 it makes 0.0986.
    """
    near = round(_DRAWS * (1 - rate))
    if not near:
        return 0, 0.0
    scale = torch.tensor(_DRAWS / near, dtype=dtype).item()
    return round(_DRAWS / scale), scale


def quicken_dropout(model: nn.Module) -> None:
    """Puts `Dropout` in the place of every torch.nn.Dropout of a model on the CPU."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
