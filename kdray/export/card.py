"""The manifest of a package becomes its model card.

Knows nothing about files: it says what it is told, and leaves out what it is not.
"""

import json
from typing import Any

from kdray.evaluation.comparison import told
from kdray.serving.backends import FILES
from kdray.tasks import Task

_WHO = {"teacher": "teacher", "baseline": "baseline: this student without distillation, with as many tries",
        "winner": "**this model**"}


def model_card(task: Task, package: dict[str, Any]) -> str:
    """The model card of a package with this manifest, as the Hugging Face hub reads it.

    Of the manifest it takes `labels`, `max_length`, `bytes` by file, `backend` (which file is served), `checks` (ONNX
    against PyTorch, by backend), `refused` (files that are not there, and why), `lineage` (artefact keys by kind) and
    `numbers` with `test` (metrics with intervals), `seeds`, `parameters` and `settings`.
    """
    numbers, checks = package.get("numbers", {}), package["checks"]
    parts = [
        _front_matter(task), "# A distilled model", _summary(task, package["labels"], numbers),
        _section("Test split", _metrics_table(task, numbers)),
        _section("Files", _sizes_table(package["bytes"]) + _refused(package["refused"])),
        _section("ONNX against PyTorch, on the validation split", _checks_table(checks)),
        _section("Use", _use(task, package["max_length"], package["backend"]) + _settled(package.get("threshold"))),
        _section("Settings of the distillation", _named(numbers.get("settings", {}))),
        _section("Lineage", _named(package.get("lineage", {}))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(task: Task) -> str:
    library = task.use[0] if task.use else "transformers"
    return "\n".join(["---", f"library_name: {library}", f"pipeline_tag: {task.pipeline_tag}", "tags:",
                      "- distillation", "- kdray", "---"])


def _summary(task: Task, labels: list[str], numbers: dict[str, Any]) -> str:
    parameters = numbers.get("parameters", {})
    size = f" with {parameters['winner']:,} parameters" if "winner" in parameters else ""
    teacher = f" of {parameters['teacher']:,}" if "teacher" in parameters else ""
    what = (f"Its labels are {', '.join(f'`{label}`' for label in labels)}" if task.output.named or task.names else
            f"Its vectors have {len(labels)} dimensions")
    return f"A {task.name} model{size}, distilled by kdray from a teacher{teacher}. {what}."


def _metrics_table(task: Task, numbers: dict[str, Any]) -> str:
    test, parameters = numbers.get("test", {}), numbers.get("parameters", {})
    metrics = list(dict.fromkeys(name for scores in test.values() for name in scores))
    titles = _WHO if task.labelled else {**_WHO, "baseline": "baseline: this student with its first weights"}
    lines = [[titles[who], *(_interval(test[who].get(name)) for name in metrics), _count(parameters.get(who))]
             for who in _WHO if who in test]
    if not lines:
        return ""
    table = _table(["model", *metrics, "parameters"], lines)
    gain = f" {told(numbers['seeds'], numbers['metric'])}." if "seeds" in numbers else ""
    return f"{table}\n\nIn brackets: the confidence interval. Settings were chosen on the validation split.{gain}"


def _sizes_table(sizes: dict[str, int]) -> str:
    return _table(["file", "bytes"], [[f"`{name}`", f"{size:,}"] for name, size in sizes.items()])


def _refused(reasons: dict[str, str]) -> str:
    return "".join([f"\n\nNot here, {what}: {why}." for what, why in reasons.items()])


def _checks_table(checks: dict[str, dict[str, Any]]) -> str:
    lines = [[", ".join([name, *filter(None, [check.get("way")])]), f"{check['value']:.4f}", f"{check['torch']:.4f}",
              f"{check['agreement']:.2%}", f"{check['largest_difference']:.2g}"] for name, check in checks.items()]
    metric = next((check["metric"] for check in checks.values()), "metric")
    head = ["backend", metric, f"{metric}, PyTorch", "same decision", "largest difference of a logit"]
    return _table(head, lines)


def _use(task: Task, max_length: int, backend: str) -> str:
    library, code = task.use or ("transformers", "from transformers import pipeline\n\n"
                                 f'print(pipeline("{task.pipeline_tag}", model=".")({json.dumps(task.example)}))')
    return f"""In this folder, with {library}:

```python
{code}
```
{_use_onnx(task, max_length, FILES[backend]) if backend != "torch" else ""}
Rows were cut to {max_length} tokens in training."""


def _settled(threshold: float | None) -> str:
    return "" if threshold is None else (
        f"\nkdray settles decisions at a threshold of {threshold:.4g}, a logit that was tuned on the validation split.")


def _use_onnx(task: Task, max_length: int, file: str) -> str:
    example = task.example.values() if isinstance(task.example, dict) else [task.example]
    texts = ", ".join(json.dumps([text]) for text in example)
    return f"""
With ONNX Runtime, for the logits (`{file}` is what kdray serves on a CPU):

```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
session = onnxruntime.InferenceSession("{file}")
batch = tokenizer({texts}, padding=True, truncation=True, max_length={max_length}, return_tensors="np")
print(session.run(["logits"], {{item.name: batch[item.name] for item in session.get_inputs()}})[0])
```
"""


def _named(values: dict[str, Any]) -> str:
    shown = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items()]
    return "\n".join(f"- {name}: `{value}`" for name, value in shown)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(head: list[str], lines: list[list[str]]) -> str:
    cells = [head, ["---"] * len(head), *lines] if lines else []
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _interval(score: dict[str, float] | None) -> str:
    return f"{score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f})" if score else "-"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
