"""When a RayCronJob runs, and what of it reaches its jobs."""

import re
from collections.abc import Callable, Iterator
from zoneinfo import available_timezones

from kdray.kubernetes.operator.service import seconds
from kdray.kubernetes.problem import Problem, RayManifest

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 6, _DAYS))
"""Bounds of minute, hour, day, month and weekday, and names from the lowest on (robfig/cron 3.0.1, spec.go)."""
_DESCRIPTORS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
_READ = ("ray.io/", "kueue.x-k8s.io/")


def schedule(manifest: RayManifest) -> Iterator[Problem]:
    """When a RayCronJob runs."""
    if not _is_schedule(str(manifest.at("spec.schedule", ""))):
        yield manifest.problem("spec.schedule", "not a cron schedule: write minute, hour, day, month and weekday, such "
                               "as '0 2 * * *', with the zone in timeZone")
    zone = manifest.at("spec.timeZone")
    if zone is not None and zone not in available_timezones() | {"Local"}:
        yield manifest.problem("spec.timeZone", "no such time zone: write one such as Etc/UTC or Europe/Berlin")


def _is_schedule(text: str) -> bool:
    if text.startswith("@every "):
        return seconds(text.removeprefix("@every ")) is not None
    fields = text.split()
    return text in _DESCRIPTORS or ("TZ" not in text and len(fields) == 5 and all(map(_is_field, fields, _FIELDS)))


def _is_field(field: str, bounds: tuple[int, int, tuple[str, ...]]) -> bool:
    return all(_is_range(part, *bounds) for part in filter(None, field.split(",")))


def _is_range(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    """Whether `part` is LOW, LOW-HIGH or a star, with or without a /STEP."""
    found = re.fullmatch(r"(?P<from>\*|\?|\w+)(-(?P<to>\w+))?(/(?P<step>\d+))?", part)
    if found is None or (found["step"] and int(found["step"]) == 0):
        return False
    if found["from"] in "*?":
        return True
    ends = [low + names.index(word) if (word := end.lower()) in names else int(end) if end.isdecimal() else -1
            for end in (found["from"], found["to"] or found["from"])]
    return low <= ends[0] <= ends[1] <= high


def metadata(manifest: RayManifest) -> Iterator[Problem]:
    """Jobs of a RayCronJob have its specification, and nothing of its metadata (raycronjob_controller.go)."""
    for field in ("labels", "annotations"):
        for key, value in manifest.at(f"metadata.{field}", {}).items():
            if str(key).startswith(_READ):
                yield Problem(str(manifest), f"metadata.{field}.{key}", value, "never reaches the jobs, which have the "
                              "template's specification alone: leave it out (a LocalQueue called default takes all "
                              "jobs of its namespace)")


RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (schedule, metadata)
