"""Sweeps of any size as their manifests have them, without training: rows of made-up numbers."""

import math
import random
from typing import Any

FAMILY = ("large", "medium", "small")
_EPOCHS = 4


def made_up_sweep(trials: int, metric: str = "accuracy", family: tuple[str, ...] = FAMILY, seed: int = 0) -> dict:
    """`trials`, `students`, `winner`, `baseline` and `constraint`, which nothing meets, of a sweep's manifest.

    Each student of the family has its baseline; of ten trials about two are stopped early and one fails.
    """
    chance = random.Random(seed)
    rows = [_row(chance, metric, family, index, baseline=index < len(family)) for index in range(trials)]
    students = {name: _student(rows, name, place) for place, name in enumerate(family)}
    best = students[family[-1]]
    return {"trials": rows, "students": students, "winner": best["winner"], "baseline": best["baseline"],
            "constraint": {"max_ms": None, "max_mb": best["bytes"] / 1.25e6, "met": False,
                           "excess": {"max_mb": 0.25}}}


def _row(chance: random.Random, metric: str, family: tuple[str, ...], index: int, baseline: bool) -> dict[str, Any]:
    place = index % len(family)
    state = "finished" if baseline or index < 2 * len(family) else chance.choices(
        ("finished", "stopped", "failed"), (7, 2, 1))[0]
    point: dict[str, Any] = {"alpha": 1.0} if baseline else {
        "temperature": math.exp(chance.uniform(0, math.log(8))), "alpha": chance.uniform(0, 0.9),
        "lr": math.exp(chance.uniform(math.log(3e-5), math.log(3e-3))), "loss": chance.choice(["kl", "mse", "huber"])}
    epochs = {"finished": _EPOCHS, "stopped": chance.randint(1, 3), "failed": chance.randint(0, 1)}[state]
    top = 0.93 - 0.02 * place - 0.02 * abs(point["alpha"] - 0.3) + chance.gauss(0, 0.005)
    history = [{"epoch": epoch, "stage": 0, "loss": 0.7 / epoch, metric: top - 0.1 / epoch**2,
                **({} if baseline else {"agreement": top + 0.02 - 0.1 / epoch})} for epoch in range(1, epochs + 1)]
    return {"name": family[place], "point": point, "baseline": baseline, "state": state, "epochs": epochs,
            "best": max((entry[metric] for entry in history), default=None), "history": history,
            "student": f"{index:032x}" if state == "finished" else None, "seconds": 12.5 * epochs,
            "error": "TrainingError: the loss is nan in step 3 of epoch 1" if state == "failed" else None}


def _student(rows: list[dict[str, Any]], name: str, place: int) -> dict[str, Any]:
    own = [row for row in rows if row["name"] == name and row["state"] == "finished"]
    best = max((row for row in own if not row["baseline"]), key=lambda row: row["best"])
    return {"winner": best["student"], "baseline": next(row["student"] for row in own if row["baseline"]),
            "best": best["best"], "bytes": 16_000_000 // 2**place, "milliseconds": 8.0 / 2**place}
