"""A verb and a config become one stage of the pipeline, and what a person is told about it.

Shared by the command line and the jobs.
"""

import logging
import os
from pathlib import Path

from kdray.config import Config, load
from kdray.console import guarded
from kdray.errors import ClusterError, ConfigError
from kdray.pipeline import Pipeline
from kdray.storage import storage_errors

logger = logging.getLogger("kdray")


def job(stage: str, arguments: list[str]) -> int:
    """What `jobs/*.py` do: `stage` of the config named by the arguments; returns the exit status."""

    def act() -> None:
        if not arguments:
            raise ConfigError("usage: python jobs/STAGE.py CONFIG [KEY=VALUE ...]")
        run_stage(stage, load(arguments[0], arguments[1:]))

    return guarded(act)


def run_stage(stage: str, config: Config) -> None:
    """Runs one stage, and those before it that are missing; prints where its artefact is."""
    pipeline = Pipeline(config, {"teacher": "teacher", "cache": "cache"}.get(stage, "students"))
    logger.info("run %s: storage %s", config.name, pipeline.store.uri)
    if stage in ("run", "evaluate"):
        _tell_run(pipeline)
        return
    act = {"teacher": _tell_teacher, "cache": _tell_cache, "distill": _tell_student, "tune": _tell_sweep}
    act[stage](pipeline)


def serve_run(run: str, overrides: list[str], blocking: bool) -> str:
    """Hosts the winner of `run` (a folder or URI with run.json); returns its URL, at the end where blocking.

    Raises KdrayError where there is no such run or it cannot be served.
    """
    from kdray.serving.guard import take_keys
    from kdray.serving.runs import packages, read_run

    config, package = read_run(run)
    settings = config.serve.changed(overrides)
    served, keys = packages(package, settings), take_keys(settings.keys)
    from kdray.cluster import connect
    from kdray.serving.deploy import deploy

    connect(niceness=0)
    return deploy(served, settings, keys, blocking)


def draw_report(run: str, out: Path | None) -> None:
    """Draws the report of `run` from its report.json, writes it to `out`, null ./NAME.html, and prints where.

    Raises KdrayError where there is no such run or report, or `out` cannot be written.
    """
    from kdray.report.facts import read_report
    from kdray.report.page import draw
    from kdray.serving.runs import find_run, run_facts

    store, name = find_run(run)
    out = (out or Path(f"{name}.html")).expanduser()
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"--out {out} is a folder: name a file in it" if out.is_dir() else
                          f"--out {out}: there is no folder {out.parent}. Make it, or name another file")
    page = draw(read_report(store, run_facts(store, name)["report"]))
    with storage_errors(str(out), "--out"):
        out.write_text(page, encoding="utf-8")
    print(f"report: {_short(str(out))}")


def change_service(act: str, name: str, run: str | None, share: float, port: int | None) -> None:
    """Promotes `run` to `name` on a running service, tries it as a canary, or goes back; prints what answers now.

    The service is that of the cluster RAY_ADDRESS, else the one on `port` of this machine, else its only one.

    Raises KdrayError, and changes nothing, where there is no such run or service or the student fails its check.
    """
    from kdray.serving.runs import read_run

    package = read_run(run)[1] if run else ""
    _join_service(port)
    from kdray.serving import change

    acts = {"promote": lambda: change.promote(name, package), "back": lambda: change.back(name),
            "canary": lambda: change.put_canary(name, package, share)}
    slot = acts[act]()
    print(f"{name}: {_short(slot.package)}" + (f", and {_short(slot.canary)} for {slot.share:.0%} of the requests"
                                               if slot.canary else ""))


def change_keys(file: str | None, port: int | None) -> None:
    """Gives a running service the API keys of `file` and KDRAY_API_KEYS in the place of those it has.

    The service is found as by `change_service`. Raises KdrayError, and changes nothing, where there is none, a key is
    unfit, or the service would be open to anybody.
    """
    from kdray.serving.guard import take_keys

    keys = take_keys(file)
    _join_service(port)
    from kdray.serving.change import replace_keys

    replace_keys(keys)
    print(f"keys: {len(keys)}")


def _join_service(port: int | None) -> None:
    """Joins the Ray cluster of RAY_ADDRESS, else that of the service on `port` of this machine, else of its only one.

    Raises ClusterError where there is none, or several to choose from.
    """
    from kdray.serving.haproxy import services

    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        found = {one: about for one, about in services().items() if port in (None, one)}
        if len(found) > 1:
            raise ClusterError(f"services run on the ports {', '.join(map(str, sorted(found)))}: say which with --port")
        if not found:
            where = "" if port is None else f" on port {port}"
            raise ClusterError(f"no service{where} runs on this machine. Start one (kdray serve RUN), or name its "
                               "cluster in RAY_ADDRESS")
        (about,) = found.values()
        address, os.environ["RAY_AUTH_MODE"] = about["address"], about["auth_mode"]  # Ray reads it when it is imported
    from kdray.cluster import join

    join(address)


def bench_run(run: str, overrides: list[str], file: str | None, most: int, floor: float | None) -> None:
    """Prints how every backend runs the winner of `run` on the texts of `file`, null its test split, and which to use.

    `most` texts at most, 0 takes all. Raises KdrayError where there is no such run, text or package.
    """
    from kdray.serving.choice import advise, table
    from kdray.serving.compare import compare
    from kdray.serving.predictor import read_package
    from kdray.serving.roster import fetch_package
    from kdray.serving.runs import read_run
    from kdray.serving.texts import read_texts, split_texts, spread
    from kdray.tasks import TASKS

    config, package = read_run(run)
    settings, folder = config.serve.changed(overrides), fetch_package(package)
    manifest = read_package(folder)
    task = TASKS[manifest["task"]]
    items = read_texts(file, task, config.data.columns) if file else split_texts(package, manifest, task)
    found = compare(folder, spread(items, most or len(items)), settings)
    print(table(found))
    print("\n".join(advise(found, floor)))


def _tell_teacher(pipeline: Pipeline) -> None:
    print(f"corpus: {pipeline.store.uri_of('corpus', pipeline.corpus['key'])}")
    print(f"teacher: {pipeline.teacher.folder} (fingerprint {pipeline.teacher.fingerprint})")


def _tell_cache(pipeline: Pipeline) -> None:
    cache = pipeline.cache
    if cache is None:
        raise ConfigError("teacher.live runs the teacher in the training step: there is no cache to fill")
    print(f"cache: {pipeline.store.uri_of('caches', cache['key'])} ({sum(cache['rows'].values())} rows)")


def _tell_student(pipeline: Pipeline) -> None:
    for student in pipeline.students.values():
        score = student["validation"][student["metric"]]
        print(f"student: {pipeline.store.uri_of('students', student['key'])} "
              f"(validation {student['metric']} {score:.4f})")


def _tell_sweep(pipeline: Pipeline) -> None:
    from kdray.search.describe import describe
    from kdray.search.selection import mark

    sweep, chosen, several = pipeline.sweep, pipeline.selection, len(pipeline.jobs) > 1
    trials = [*sweep["trials"], *chosen["trials"]]
    for row in sorted(trials, key=lambda row: -(row["best"] or 0)):
        what = mark(row, trials, chosen["winner"], chosen["baseline"])
        print(f"{sweep['metric']} {row['best'] or float('nan'):.4f}  {row['state']:8}  "
              f"{describe(row['point'], row['name'] if several else '')}{what and f' <- {what}'}")
    print("the best of a sweep is in part its luckiest: winner and baseline are trained on seeds that it has not seen")
    print(f"winner: {pipeline.store.uri_of('students', chosen['winner'])}")


def _tell_run(pipeline: Pipeline) -> None:
    from kdray.evaluation.comparison import told
    from kdray.report.table import text_table

    run, numbers = pipeline.run(), pipeline.report["numbers"]
    print(text_table(numbers))
    print(f"\n{told(numbers['seeds'], numbers['metric'])}")
    print(f"\nreport:  {_short(pipeline.store.uri_of('reports', pipeline.report['key'], 'report.html'))}")
    print(f"package: {_short(pipeline.store.uri_of('packages', pipeline.package['key']))}")
    print(f"serve:   kdray serve {_short(run)}")


def _short(uri: str) -> str:
    home = os.path.expanduser("~/")
    return uri.replace(home, "~/", 1) if uri.startswith(home) else uri
