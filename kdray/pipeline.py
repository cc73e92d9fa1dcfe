"""A config becomes artefacts, stage by stage; a stage whose artefact exists is skipped.

Each property below is one stage: it asks for the stages before it, and returns what it made or found.
Ray is started by the first stage that needs it.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdray.cache.manifest import KIND as CACHES
from kdray.config import Config, Optimisation, StudentConfig, TeacherConfig, TrainingConfig, changed
from kdray.console import label
from kdray.corpus.build import build_corpus, corpus_key, see_splits
from kdray.corpus.pieces import Each, Seen, one_by_one, some_rows
from kdray.corpus.rows import KIND as CORPUS
from kdray.corpus.sources import read_splits
from kdray.corpus.tokenizer import tokenisation
from kdray.errors import ConfigError, DataError, ExportError, ModelError
from kdray.models.folder import fingerprint, label_order, locate, share
from kdray.needs import needs
from kdray.storage import Store, content_key
from kdray.tasks import TASKS, Row

if TYPE_CHECKING:
    from kdray.models.rehearsal import Rehearsed

logger = logging.getLogger("kdray")
TEACHERS = "teachers"


@dataclass(frozen=True)
class Model:
    """A model that this process has in a folder."""

    folder: Path
    fingerprint: str
    place: str
    """Where every machine finds it."""


@dataclass(frozen=True)
class Teacher(Model):
    """A teacher that is ready."""

    key: str | None
    """Key of the artefact that was made of it; None where the folder was taken as it is."""
    parameters: int | None


class Pipeline:
    """The stages of one config, in the order of the flow."""

    def __init__(self, config: Config, last: str = "students"):
        """`last`: the last of `needs.STAGES` that will be asked for."""
        self.config, self.task, self.store = config, TASKS[config.task], Store(config.storage)
        self._last, self._joined, self._checked, self._rehearsed = last, False, False, False
        self._tokenised: dict[Path, str] = {}
        label(run=config.name)

    @cached_property
    def base(self) -> Path:
        """Folder of the teacher, before it is fine-tuned where it is to be."""
        return self._configured if self._short is None else self.store.fetch(TEACHERS, self._short)

    @cached_property
    def _configured(self) -> Path:
        """Folder of the configured teacher model."""
        teacher = self.config.teacher
        return self._located(teacher.model, teacher.revision, as_is=teacher.finetune is None)

    @cached_property
    def _short(self) -> str | None:
        """Key of the teacher whose vectors are cut to `teacher.dimensions`; None where they stay as they are."""
        dimensions, most = self.config.teacher.dimensions, self.config.data.max_length
        if dimensions is None:
            return None
        from kdray.models.shorter import SAMPLE, calls, check_shorter, moment, write_shorter

        check_shorter(self._configured, dimensions)
        whole, train = self._model(self._configured), self.seen["train"]
        key = content_key({"model": whole.fingerprint, "dimensions": dimensions, "max_length": most,
                           "rows": [part.digest for part in train], "layout": 1})
        if self._made("teacher", TEACHERS, key) is None:
            self._rehearse()
            texts = self._texts(some_rows(train, SAMPLE))
            moments = self._where.each(
                moment, calls(whole.place, self.task, most, self._where.num_gpus, texts), "directions")
            with self.store.staging(TEACHERS) as staged:
                kept = write_shorter(self.task, whole.folder, moments, dimensions, staged)
                self.store.publish(TEACHERS, key, staged, {
                    "parents": {"model": whole.fingerprint}, "dimensions": dimensions, "kept": kept})
            logger.info("teacher: %d numbers keep %.1f %% of its vectors' squared length", dimensions, 100 * kept)
        return key

    def _texts(self, rows: Iterator[Row]) -> list[str]:
        """Each text of rows of train. Raises DataError where a row is wrong."""
        texts = list[str]()
        for row in rows:
            if wrong := self.task.complaint(row):
                raise DataError(f"a row of the train split: {wrong} ({row!s:.60}). Mend it, or take it out")
            texts += [self.task.item(one) for one in self.task.rows(row)]
        return texts

    def _located(self, model: str, revision: str | None = None, as_is: bool = False) -> Path:
        """Folder of a model, with the tokens that the task puts into rows; a model taken `as_is` has to have them."""
        folder = locate(model, revision)
        if not self.task.markers:
            return folder
        from kdray.models.markers import with_markers

        return with_markers(self.store, self.task, folder, as_is)

    @cached_property
    def seen(self) -> dict[str, list[Seen]]:
        """Pieces of the raw rows by split, each read once."""
        label(stage="corpus")
        pieces = read_splits(self.config.data, self.task)
        return see_splits(pieces, self._each)

    @property
    def _each(self) -> Each:
        """How pieces of the corpus are worked on: on the cluster, where there is one."""
        return self._spread if os.environ.get("RAY_ADDRESS") else one_by_one

    def _spread(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], label: str) -> Iterator[Any]:
        from kdray.spread import spread

        self._join()
        return spread(function, arguments, label)

    @cached_property
    def corpus(self) -> dict[str, Any]:
        """Manifest of the corpus, tokenised for the teacher."""
        made = self._corpus(self.base)
        self._check_metric(made)
        return made

    def _check_metric(self, corpus: dict[str, Any]) -> None:
        """Raises DataError where a metric is to pick the winner that no row of validation has gold for."""
        if self.task.labelled or self.config.metric == self.task.metrics[0]:
            return
        from kdray.corpus.rows import Rows
        from kdray.tasks.base import measured

        rows = Rows.of_split(self.store, corpus, "validation")
        gold = rows.gold(self.task.output.shape(len(corpus["labels"])))
        if self.config.metric not in measured(self.task, gold, rows.raw(self.task)):
            raise DataError(f"search.metric = {self.config.metric}: no row of validation has a "
                            f"{self.task.label_column}. Give some one, or leave it out: {self.task.metrics[0]} needs "
                            "none")

    def _corpus(self, folder: Path) -> dict[str, Any]:
        order = None if self.config.teacher.finetune else label_order(self.base, self.task)
        if self.config.teacher.finetune is None and order is None and not self.task.names:
            raise ModelError(f"{self.base}/config.json has no id2label. Name the labels there, or fine-tune the "
                             "teacher (teacher.finetune)")
        key = corpus_key(self.seen, self.task, self.config.data, self._tokenisation(folder), order,
                         self._tokenisation(self.base))
        made = self._made("corpus", CORPUS, key)
        if made is not None:
            return made
        self._rehearse()
        place, words = str(folder), str(self.base)
        if os.environ.get("RAY_ADDRESS"):
            self._connect("corpus")  # a cluster that cannot do the rest is found out before rows are tokenised
            place, words = self._model(folder).place, self._model(self.base).place
        return build_corpus(self.store, key, self.seen, self.task, self.config.data, place, order, self._each, words)

    def _tokenisation(self, folder: Path) -> str:
        if folder not in self._tokenised:
            self._tokenised[folder] = tokenisation(folder, self.task)
        return self._tokenised[folder]

    def _rehearse(self) -> None:
        """Tries, once, what the models will have to do, before anything is made that is paid for."""
        from kdray.models.rehearsal import rehearse
        from kdray.models.subject import student_subject, teacher_subject

        if self._rehearsed:
            return
        label(stage="models")
        subjects = [teacher_subject(self.config, self._configured)]
        if self._last == "students":
            subjects += [student_subject(self.config, name,
                                         self._located(student.model) if student.model else self._configured,
                                         self._pooling)
                         for name, student in self.config.family.items()]
        logger.info("models: trying %s", ", ".join(subject.name for subject in subjects))
        for subject in subjects:
            tried = rehearse(self.task, subject, self.config.data.max_length)
            if subject is not subjects[0]:
                self._try_export(subject.name, tried)
        self._rehearsed = True

    def _try_export(self, name: str, tried: "Rehearsed") -> None:
        """Says that a student cannot become ONNX files; raises ExportError where serve.backend asks for them."""
        from kdray.export.files import check_export
        from kdray.export.onnx import check_size

        try:
            check_size(tried.outline)
            check_export(tried.model, tried.rows)
        except ExportError as error:
            if self.config.serve.backend not in ("auto", "torch"):
                raise
            logger.warning("models: %s will be served by PyTorch, not ONNX: %s", name, error)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, fine-tuned where the config asks for it."""
        tuning = self.config.teacher.finetune
        base = self._model(self.base)
        if tuning is None:
            return Teacher(**vars(base), key=self._short, parameters=None)
        from kdray.models.load import Origin

        job = self._job(TEACHERS, TrainingConfig(**{**tuning.model_dump(), "alpha": 1.0}), base, Origin(base.place),
                        self.corpus, None)
        made = self._made("teacher", TEACHERS, job.key) or self._fit(job, "teacher", "teacher.finetune")
        folder = self.store.fetch(TEACHERS, job.key)
        return Teacher(folder, fingerprint(folder, self.task), self.store.uri_of(TEACHERS, job.key), job.key,
                       made["parameters"])

    def _model(self, folder: Path) -> Model:
        key = fingerprint(folder, self.task)
        return Model(folder, key, share(self.store, folder, key))

    @cached_property
    def cache(self) -> Any:
        """Manifest of the soft-target cache of all splits; None where the teacher is live."""
        if self.config.teacher.live:
            return None
        own = self._own_cache()
        others = self.config.cache.ensemble
        if not others:
            return own
        from kdray.cache.ensemble import make_ensemble

        return make_ensemble(self.store, own["key"], self.config.cache)

    def _own_cache(self) -> dict[str, Any]:
        from kdray.cache.manifest import missing_shards
        from kdray.cache.plan import kept_plan

        teacher = self.teacher
        plan_key, plan = kept_plan(self.store, self.corpus, self.schema, self.config.cache.rows_per_shard, self._each)
        made = self.store.manifest(CACHES, plan.key)
        if made is not None and not missing_shards(self.store, made):
            return self._made("cache", CACHES, made["key"]) or made
        from kdray.teacher.fill import fill_cache

        label(stage="cache")
        self._rehearse()
        self._connect("cache")
        facts = {"parents": {"corpus": self.corpus["key"], "teacher": teacher.fingerprint},
                 "teacher_model": self._teacher_name(), "teacher_key": teacher.key}
        return fill_cache(self.store, self.config.teacher, plan, plan_key, self.corpus, teacher.place, facts)

    def _teacher_name(self) -> str:
        name = self.config.teacher.model
        return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name

    @property
    def schema(self) -> Any:
        """What, besides its rows, a shard of this config's cache depends on."""
        from kdray.cache.shard import Schema

        teacher, cache = self.config.teacher, self.config.cache
        return Schema(self.teacher.fingerprint, self.task.name, tuple(self.corpus["labels"]),
                      self.config.data.max_length, self._precision("teacher", teacher),
                      self.task.codec if cache.codec == "auto" else cache.codec, cache.compression)

    @cached_property
    def jobs(self) -> dict[str, Any]:
        """Each student of the family at the configured temperature and alpha, not yet trained."""
        return {name: self._student_job(student) for name, student in self.config.family.items()}

    def _student_job(self, student: StudentConfig) -> Any:
        from kdray.models.load import student_origin

        model = self._model(self._located(student.model)) if student.model else self.teacher
        own = self._tokenisation(model.folder) != self._tokenisation(self.base) if student.model else False
        corpus = self._corpus(model.folder) if own else self.corpus
        origin = replace(student_origin(student, model.folder, self._pooling), folder=model.place)
        settings = changed(self.config.training, student.training)
        return self._job("students", settings, model, origin, corpus, self._cache_key, self._live)

    @property
    def _pooling(self) -> Any:
        """How the teacher pools, which its students do as well; None where nothing is pooled."""
        from kdray.models.pooling import must_pool, pools

        return replace(must_pool(self._configured), dense=None) if pools(self.task) else None

    @property
    def _cache_key(self) -> str | None:
        return self.cache["key"] if self.cache else None

    @property
    def _live(self) -> Any:
        from kdray.training.job import Live

        if not self.config.teacher.live:
            return None
        wanted = changed(self.config.training, {"precision": self.config.teacher.precision})
        return Live(self.teacher.place, self.teacher.fingerprint, self.corpus["key"],
                    self.corpus["pad_token_id"], self._precision("live teacher", wanted))

    def _check_targets(self, job: Any) -> None:
        """Warns of soft targets that teach nothing, before students are paid for."""
        from kdray.training.health import check_targets
        from kdray.training.targets import sample_targets

        teacher, gold, units = sample_targets(job)
        output = self.task.output.among(units)
        if self.config.teacher.live and self.config.teacher.finetune is None:
            output.check_teacher(gold, output.unsettled(teacher), job.labels)
        warning = check_targets(output, teacher, gold)
        if warning:
            logger.warning(warning)

    @cached_property
    def students(self) -> dict[str, dict[str, Any]]:
        """Manifest of each student at the configured temperature and alpha."""
        return {name: self._made("student", "students", job.key) or self._student(name, job)
                for name, job in self.jobs.items()}

    def _student(self, name: str, job: Any) -> dict[str, Any]:
        label(student=name)
        if job.distils:
            self._check_targets(job)
        return self._fit(job, "students", "training")

    @cached_property
    def sweep(self) -> dict[str, Any]:
        """Manifest of the sweep: the table of trials."""
        from kdray.search.sweep import KIND

        made = self._made("sweep", KIND, self._plan.key)
        return made or self._run_sweep()

    @cached_property
    def _plan(self) -> Any:
        from kdray.search.sweep import Sweep

        return Sweep(self.jobs, self.config.search, name=self.config.name)

    def _run_sweep(self) -> dict[str, Any]:
        from kdray.search.sweep import KIND, discard, run_sweep

        self._rehearse()
        self._check_targets(self._plan.base)
        self._connect("students")
        rows = run_sweep(self._plan)
        parents = {"corpus": self._plan.base.corpus, "cache": self._plan.base.cache}
        with self.store.staging(KIND) as folder:
            made = self.store.publish(KIND, self._plan.key, folder, {
                "parents": parents, "metric": self.config.metric,
                "search": self.config.search.model_dump(mode="json"), "trials": rows})
        discard(self._plan)
        return made

    @cached_property
    def selection(self) -> dict[str, Any]:
        """Manifest of the selection: winner and baseline, trained on seeds that the sweep has not seen."""
        from kdray.search.finalists import KIND, select, selection_key

        search, threads = self.config.search, max(1, int(self.config.serve.num_cpus))
        max_drop = self.config.export.max_drop
        key = selection_key(self.sweep["key"], search, max_drop, threads)
        made = self._made("selection", KIND, key)
        if made is None:
            self._connect("students")
            made = select(self.store, key, self._plan, self.sweep, search, max_drop, threads,
                          self._where)
        return made

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """Manifest of the numbers on the test split: teacher, baseline and winner, on every seed."""
        from kdray.evaluation.evaluate import KIND, evaluate, evaluation_key

        chosen, cache = self.selection, self._cache_key
        key = evaluation_key(cache or self.teacher.fingerprint, chosen)
        return self._made("evaluation", KIND, key) or evaluate(
            self.store, key, self.task, self.corpus, self.teacher.place, cache, chosen, self._where)

    @cached_property
    def package(self) -> dict[str, Any]:
        """Manifest of the winner's package."""
        from kdray.export.files import student_files
        from kdray.export.package import build_package, check_backend, package_key

        winner = self._manifest("students", self.selection["winner"])
        numbers, lineage = self.evaluation["numbers"], self.lineage
        label(stage="package")
        export = student_files(self.store, winner, self.config.export.max_drop, self._where)
        parents = {"student": winner["key"], "export": export["key"], "evaluation": self.evaluation["key"]}
        key = package_key(parents)
        made = self._made("package", "packages", key) or build_package(
            self.store, key, winner, export, {"parents": parents, "numbers": numbers, "lineage": lineage}, _threads())
        check_backend(made, self.config.serve.backend)
        return made

    @property
    def _where(self) -> Any:
        """Where models are asked about whole splits: where students are trained, which may be on this machine."""
        from kdray.evaluation.answers import HERE, Where

        if not os.environ.get("RAY_ADDRESS") and not self.config.training.num_gpus:
            return HERE
        return Where(self._on_workers, self.config.training.num_gpus)

    def _on_workers(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]],
                    label: str) -> Iterator[Any]:
        from kdray.workers import work

        self._join()
        return work(function, arguments, label, self.config.training)

    @property
    def lineage(self) -> dict[str, Any]:
        """What the winner was made from, as keys."""
        cache = {"cache": self._cache_key} if self._cache_key else {}
        return {"corpus": self.corpus["key"], "teacher": self.teacher.fingerprint, **cache,
                "sweep": self.sweep["key"], "selection": self.selection["key"],
                "student": self.selection["winner"], "baseline": self.selection["baseline"]}

    @cached_property
    def report(self) -> dict[str, Any]:
        """Manifest of the report."""
        from kdray.report.build import KIND, build_report, report_key

        key = report_key(self.package["key"], self.selection["key"])
        sweep = {**self.selection, "trials": [*self.sweep["trials"], *self.selection["trials"]]}
        return self._made("report", KIND, key) or build_report(
            self.store, key, self.config, self.package, sweep, self.evaluation, self.cache, self.corpus,
            self.teacher.folder, self._where)

    def run(self) -> str:
        """All stages; returns the run's folder, which names them all."""
        run = {"version": 1, "name": self.config.name, "lineage": self.lineage, "config": self.config.model_dump_json(),
               "evaluation": self.evaluation["key"], "package": self.package["key"], "report": self.report["key"]}
        name = f"{self.config.name}-{content_key([run['package'], run['report']])[:8]}"
        self.store.write(json.dumps(run, indent=1).encode(), "runs", name, "run.json")
        return self.store.uri_of("runs", name)

    def _made(self, stage: str, kind: str, key: str) -> dict[str, Any] | None:
        made = self.store.manifest(kind, key)
        label(stage=stage, student="")
        logger.info("%s: %s %s", stage, "found" if made else "making", key[:12])
        return made

    def _manifest(self, kind: str, key: str) -> dict[str, Any]:
        made = self.store.manifest(kind, key)
        if made is None:
            raise ConfigError(f"{kind} {key} is gone from {self.store.uri}: run the stage before again")
        return made

    def _precision(self, who: str, wanted: Optimisation | TeacherConfig) -> str:
        """The precision of work that is to run with the settings `wanted`."""
        from kdray.models.precision import kept_precision, resolve_precision

        if wanted.precision != "auto" or wanted.num_gpus:
            return resolve_precision(wanted.precision, wanted.num_gpus)
        return kept_precision(self.store, self.corpus["key"], who, lambda: self._native(wanted.labels))

    def _native(self, labels: dict[str, str]) -> bool:
        """Whether the processors of all nodes with these labels have bfloat16 instructions; this one's, without any."""
        from kdray.models.precision import has_bfloat16

        if not os.environ.get("RAY_ADDRESS"):
            return has_bfloat16()
        from kdray.cluster import ask

        self._join()
        return all(ask(has_bfloat16, labels) or [has_bfloat16()])

    def _connect(self, stage: str) -> None:
        """Has Ray for `stage`, which sees itself whether it fits, and checks once that what comes after it will fit.

        Raises ClusterError where the cluster is too small for a later stage, or as `_join` does.
        """
        from kdray.cluster import check_need

        self._join()
        if not self._checked:
            for need in needs(self.config, stage, self._last, self._rows):
                check_need(need)
            self._checked = True

    def _join(self) -> None:
        """Has Ray; raises ClusterError where the cluster has nodes that would work otherwise than this process."""
        from kdray.cluster import connect

        connect(dashboard=self.config.training.workers > 1)
        if os.environ.get("RAY_ADDRESS") and not self._joined:
            from kdray.doctor.preflight import preflight

            preflight(self.config)
        self._joined = True

    @property
    def _rows(self) -> int:
        """Rows that the teacher is asked about."""
        given = {split: sum(piece.rows for piece in pieces) for split, pieces in self.seen.items()}
        return sum(given.values()) + given["train"] * self.config.data.phrases

    def _fit(self, job: Any, stage: str, origin: str) -> dict[str, Any]:
        from kdray.training.trainer import check_workers, fit

        self._rehearse()
        self._connect(stage)
        check_workers(job.settings, origin)
        return fit(job)

    def _job(self, kind: str, settings: Optimisation, model: Model, origin: Any, corpus: dict[str, Any],
             cache: str | None, live: Any = None) -> Any:
        from kdray.training.job import TrainingJob

        precision = self._precision(kind, settings)
        if precision == "float16" and not settings.num_gpus:
            raise ConfigError("precision float16 needs a GPU (num_gpus); a processor trains in bfloat16 or float32")
        return TrainingJob(
            kind=kind, storage=self.store.uri, task=self.task.name, labels=tuple(corpus["labels"]),
            corpus=corpus["key"], labelled=corpus.get("labelled"), cache=cache, origin=origin,
            origin_fingerprint=model.fingerprint, tokenizer=model.place, pad_token_id=corpus["pad_token_id"],
            metric=self.config.metric, settings=settings.model_dump(), precision=precision, live=live)


def _threads() -> int:
    return len(os.sched_getaffinity(0))
