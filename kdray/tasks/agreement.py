"""An answer and those that are right become how well they agree, as SQuAD counts it.

Rajpurkar et al. 2016 (arXiv 1606.05250), section 6.1, and 2018 (arXiv 1806.03822) where there is no answer: case,
punctuation and articles count for nothing. Knows nothing about places.
"""

import re
import string
from collections import Counter
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Truth:
    """What a row's answer is measured with."""

    context: str
    answers: list[str]
    """All that are right; none where the context has none."""


def words(text: str) -> list[str]:
    """The words that count."""
    return _ARTICLES.sub(" ", text.lower().translate(_SIGNS)).split()


def exact(said: str, answers: list[str]) -> bool:
    """Whether an answer has the words of one that is right, in their order; nothing is right where there is none."""
    wanted = [words(answer) for answer in answers]
    return words(said) in ([one for one in wanted if one] or [[]])


def f1(said: str, answers: list[str]) -> float:
    """Of the answer that shares most words: F1 of the words; 1 where neither has any, 0 where one has none."""
    wanted = [one for one in map(words, answers) if one] or [[]]
    return max(_f1(words(said), one) for one in wanted)


def _f1(said: list[str], wanted: list[str]) -> float:
    if not (said and wanted):
        return float(said == wanted)
    return 2 * sum((Counter(said) & Counter(wanted)).values()) / (len(said) + len(wanted))
