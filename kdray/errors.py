"""What kdray raises when it cannot go on: one family, so that the command line can tell it from a bug.

A message says what is wrong, the value, where it came from and the remedy.
"""

GIVE_TOKEN = "Give the cluster's token in RAY_AUTH_TOKEN, a file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
"""Where Ray looks for its token, in its order."""


class KdrayError(Exception):
    """Base of every error that a user can cause and mend. The command line prints it without a trace."""


class ConfigError(KdrayError):
    """The configuration is wrong: an unknown key, a value out of range, parts that contradict each other."""


class DataError(KdrayError):
    """The rows are wrong: a missing file or column, an empty text, a label that training never saw."""


class ModelError(KdrayError):
    """A model folder is wrong: no tokenizer, pickled weights, labels that disagree with the data."""


class CacheError(KdrayError):
    """The soft-target cache is wrong: a torn shard, a manifest of another version, logits that are not finite."""


class StorageError(KdrayError):
    """Storage refused: a full disk, a folder without write permission, an unreadable artefact."""


class ClusterError(KdrayError):
    """The cluster cannot do what was asked: fewer CPUs or GPUs than the run needs."""


class TrainingError(KdrayError):
    """Training ended without a student: the loss is not finite, or workers kept failing."""


class ExportError(KdrayError):
    """An exported model does not do what the student does, so it is not accepted."""


def first_line(error: BaseException) -> str:
    """What a library's error says at first, for a message of one line."""
    return str(error).strip().partition("\n")[0]
