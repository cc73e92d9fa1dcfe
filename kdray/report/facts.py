"""A report's key becomes the content of its report.json. Knows nothing about how it was made or is drawn."""

import json
from typing import Any

from kdray.errors import StorageError
from kdray.storage import Store

KIND = "reports"
VERSION = 3
FACTS = "report.json"


def read_report(store: Store, key: str) -> dict[str, Any]:
    """The content of a report's report.json. Raises StorageError where it is gone or of another version."""
    try:
        facts = json.loads(store.read(KIND, key, FACTS))
    except FileNotFoundError as error:
        raise StorageError(f"report {key} is gone from {store.uri}: run `kdray evaluate` again") from error
    if facts.get("version") != VERSION:
        raise StorageError(f"{store.uri_of(KIND, key, FACTS)} has version {facts.get('version')!r}, this kdray draws "
                           f"{VERSION}. Run `kdray evaluate` again")
    return facts
