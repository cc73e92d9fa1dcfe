"""What shows that something was unpickled."""

from pathlib import Path
from typing import Any


class Bomb:
    """Makes the file `witness` where it is unpickled."""

    def __init__(self, witness: Path):
        self._witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._witness,)
