"""What a model says of a target: how its logits are read, compared, taught and counted. Tasks name theirs."""

from kdray.outputs.base import Output
from kdray.outputs.choice import Choice
from kdray.outputs.embedding import Embedding
from kdray.outputs.flags import Flags
from kdray.outputs.span import Span
from kdray.outputs.value import Value

__all__ = ["Choice", "Embedding", "Flags", "Output", "Span", "Value"]
