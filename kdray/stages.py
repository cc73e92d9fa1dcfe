"""A verb and a config become one stage of the pipeline, and what a person is told about it.

Shared by the command line and the jobs.
"""

import logging
import os

from kdray.config import Config, load
from kdray.console import guarded
from kdray.errors import ConfigError
from kdray.pipeline import Pipeline

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
    pipeline = Pipeline(config)
    if stage in ("run", "evaluate"):
        _tell_run(pipeline)
        return
    act = {"teacher": _tell_teacher, "cache": _tell_cache, "distill": _tell_student, "tune": _tell_sweep}
    act[stage](pipeline)


def serve_run(run: str, overrides: list[str], blocking: bool) -> str:
    """Hosts the winner of `run` (a folder or URI with run.json); returns its URL, at the end where blocking.

    Raises KdrayError where there is no such run or it cannot be served.
    """
    from kdray.cluster import connect
    from kdray.serving.deploy import deploy
    from kdray.serving.roster import DEFAULT
    from kdray.serving.runs import read_run

    config, package = read_run(run)
    settings = config.serve.changed(overrides)
    packages = {DEFAULT: package, **{name: read_run(other)[1] for name, other in settings.students.items()}}
    connect()
    return deploy(packages, settings, blocking)


def change_service(act: str, name: str, run: str | None, share: float) -> None:
    """Promotes `run` to `name` on the running service, tries it as a canary, or goes back; prints what answers now.

    Raises KdrayError, and changes nothing, where there is no such run or service or the student fails its check.
    """
    from kdray.cluster import join
    from kdray.serving import deploy
    from kdray.serving.runs import read_run

    package = read_run(run)[1] if run else ""
    join()
    acts = {"promote": lambda: deploy.promote(name, package), "back": lambda: deploy.back(name),
            "canary": lambda: deploy.put_canary(name, package, share)}
    slot = acts[act]()
    print(f"{name}: {_short(slot.package)}" + (f", and {_short(slot.canary)} for {slot.share:.0%} of the requests"
                                               if slot.canary else ""))


def _tell_teacher(pipeline: Pipeline) -> None:
    print(f"corpus: {pipeline.store.uri_of('corpus', pipeline.corpus['key'])}")
    print(f"teacher: {pipeline.teacher.folder} (fingerprint {pipeline.teacher.fingerprint})")


def _tell_cache(pipeline: Pipeline) -> None:
    cache = pipeline.cache
    print(f"cache: {pipeline.store.uri_of('caches', cache['key'])} ({sum(cache['rows'].values())} rows)")


def _tell_student(pipeline: Pipeline) -> None:
    student = pipeline.student
    score = student["validation"][student["metric"]]
    print(f"student: {pipeline.store.uri_of('students', student['key'])} (validation {student['metric']} {score:.4f})")


def _tell_sweep(pipeline: Pipeline) -> None:
    from kdray.search.describe import describe

    sweep = pipeline.sweep
    for row in sorted(sweep["trials"], key=lambda row: -(row["best"] or 0)):
        mark = " <- winner" if row["student"] == sweep["winner"] and not row["baseline"] else ""
        print(f"{sweep['metric']} {row['best'] or float('nan'):.4f}  {row['state']:8}  {describe(row['point'])}{mark}")
    print(f"winner: {pipeline.store.uri_of('students', sweep['winner'])}")


def _tell_run(pipeline: Pipeline) -> None:
    from kdray.report.table import text_table

    run = pipeline.run()
    print(text_table(pipeline.report["numbers"]))
    print(f"\nreport:  {_short(pipeline.store.uri_of('reports', pipeline.report['key'], 'report.html'))}")
    print(f"package: {_short(pipeline.store.uri_of('packages', pipeline.package['key']))}")
    print(f"serve:   kdray serve {_short(run)}")


def _short(uri: str) -> str:
    home = os.path.expanduser("~/")
    return uri.replace(home, "~/", 1) if uri.startswith(home) else uri
