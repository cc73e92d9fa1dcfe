"""A finished run of tiny models with its report, made by the functions that the pipeline calls, without Ray."""

import json
from pathlib import Path

from kdray.config import Config, DataConfig, TeacherConfig
from kdray.evaluation.evaluate import evaluate
from kdray.export.files import student_files
from kdray.export.package import build_package
from kdray.models.load import Origin, build, save_model
from kdray.report.build import build_report
from tests.small import make_model, sentences, tagged
from tests.sweeps import made_up_sweep
from tests.unit.conftest import TAGS, Corpus, make_cache, make_corpus

LABEL = "<b>it's $x_1$ & more</b>"
"""A label that must not become HTML, nor mathematics in a plot."""
SETTINGS = {"loss": "kl", "temperature": 2.0, "alpha": 0.5, "lr": 1e-4, "epochs": 3}


def sequence_run(folder: Path) -> Path:
    """A run that classifies texts; its sweep is a made-up one of 40 trials over three students."""
    rows = [row | {"label": {"positive": LABEL}.get(row["label"], row["label"])} for row in sentences(300)]
    labels = sorted({row["label"] for row in rows})
    model = make_model(folder / "teacher", labels)
    return _run(make_corpus(folder / "store", "sequence-classification", rows, model), 40)


def token_run(folder: Path) -> Path:
    """A run that finds names, in rows cut at 10 tokens; its sweep is a made-up one of 6 trials over one student."""
    model = make_model(folder / "teacher", TAGS, 2, head="BertForTokenClassification")
    return _run(make_corpus(folder / "store", "token-classification", tagged(200), model, 10), 6)


def add_student(corpus: Corpus, key: str, layers: tuple[int, ...]) -> None:
    """Publishes an untrained student of some layers of the corpus's model."""
    with corpus.store.staging("students") as folder:
        save_model(corpus.task, build(corpus.task, Origin(str(corpus.model), layers), corpus.labels, 0), corpus.model,
                   folder)
        corpus.store.publish("students", key, folder, {
            "parents": {"corpus": corpus.manifest["key"]}, "task": corpus.task.name,
            "metric": corpus.task.metrics[0], "settings": SETTINGS,
            "validation": dict.fromkeys(corpus.task.metrics, 0.5), "labels": corpus.labels})


def _run(corpus: Corpus, trials: int) -> Path:
    store, task, metric = corpus.store, corpus.task, corpus.task.metrics[0]
    sweep = {"key": "sweep", **made_up_sweep(trials, metric, *(() if trials > 12 else (("only",),)))}
    add_student(corpus, sweep["winner"], (0, 1))
    add_student(corpus, sweep["baseline"], (0,))
    pairs = [{"seed": seed, "winner": sweep["winner"], "baseline": sweep["baseline"]} for seed in (1, 2)]
    cache = make_cache(corpus)
    evaluation = evaluate(store, "evaluation", task, corpus.manifest, str(corpus.model), cache["key"],
                          {**sweep, "pairs": pairs, "seeds": 2})
    winner = store.manifest("students", sweep["winner"])
    package = build_package(store, "package", winner, student_files(store, winner, 1.0), {
        "parents": {}, "numbers": evaluation["numbers"], "lineage": {"corpus": corpus.manifest["key"]}}, 1)
    config = Config(name="tiny", storage=store.uri, task=task.name, data=DataConfig(source="rows.jsonl"),
                    teacher=TeacherConfig(model=str(corpus.model)))
    report = build_report(store, "report", config, package, sweep, evaluation, cache, corpus.manifest, corpus.model)
    run = {"name": "tiny", "config": config.model_dump_json(), "package": package["key"], "report": report["key"],
           "evaluation": evaluation["key"], "lineage": package["lineage"]}
    store.write(json.dumps(run).encode(), "runs", "tiny-1a2b3c4d", "run.json")
    return Path(store.uri_of("runs", "tiny-1a2b3c4d"))
