"""Relations between two entities, from rows to a package that answers."""

import json
import random
from pathlib import Path
from typing import Any

from kdray.corpus.tokenizer import load_tokenizer
from kdray.serving.predictor import load_predictor
from kdray.tasks.markers import MARKERS
from tests.integration.conftest import Command, small_config, write_config
from tests.small import FILLERS, make_model, write_jsonl

NAMES = ("ann", "bob", "rome", "oslo")
RELATIONS = {"good": "Praise(e1,e2)", "bad": "Praise(e2,e1)", "|": "Other"}
TUNED = {"epochs": 6, "lr": 3e-3}


def related(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with two names, and a word that tells the relation, or that there is none."""
    chance, rows = random.Random(seed), []
    for _ in range(count):
        one, two = chance.sample(NAMES, 2)
        word = chance.choice(list(RELATIONS))
        text = " ".join([*chance.choices(FILLERS, k=chance.randint(0, 3)), one, word, two,
                         *chance.choices(FILLERS, k=chance.randint(0, 3))])
        spans = [[text.index(name), text.index(name) + len(name)] for name in chance.sample([one, two], 2)]
        rows.append({"text": text, "head": spans[0], "tail": spans[1], "relation": RELATIONS[word]})
    return rows


def test_a_relation_a_row(kdray: Command, tmp_path: Path) -> None:
    rows, base = write_jsonl(tmp_path / "rows.jsonl", related(500)), make_model(tmp_path / "base")
    config = small_config(tmp_path / "store", rows, base, {
        "task": "relation-extraction", "teacher": {"model": str(base), "finetune": TUNED},
        "training": {"epochs": 4, "lr": 3e-3}, "search": {"trials": 2, "seeds": 2}, "export": {"max_drop": 1.0}})
    done = kdray("run", str(write_config(tmp_path / "c.yaml", config)))
    assert done.returncode == 0, done.stderr
    (package,), (evaluation,) = ((tmp_path / "store" / kind).iterdir() for kind in ("packages", "evaluations"))
    found = json.loads((evaluation / "manifest.json").read_text())["numbers"]["test"]
    assert found["teacher"]["macro_f1"]["value"] > 0.8 and set(found["winner"]) == {"macro_f1", "micro_f1", "accuracy"}
    assert set(MARKERS) <= load_tokenizer(package).get_vocab().keys()
    predictor = load_predictor(package, "auto", 0, 1, 1024)
    spans, text, reverse, none = predictor.predict([
        ({"text": "ann good bob", "head": [0, 3], "tail": [9, 12]}, {}), ("<e1>ann</e1> good <e2>bob</e2>", {}),
        ("<e2>ann</e2> bad <e1>bob</e1>", {}), ("<e1>ann</e1> | <e2>bob</e2>", {})])
    assert spans.answer == text.answer and {one["label"] for one in text.answer} == set(RELATIONS.values())
    assert [one.said for one in (text, reverse, none)] == [["Praise(e1,e2)"], ["Praise(e2,e1)"], ["Other"]]
