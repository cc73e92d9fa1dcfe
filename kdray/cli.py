"""The command line: one verb a stage. Heavy imports wait until arguments are parsed.

Exit status: 0 done, 1 what the user can mend, 2 wrong arguments, 130 interrupted, 143 stopped.
"""

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

from kdray.console import guarded

STAGES = {
    "run": "all stages: teacher, cache, sweep, evaluation, package, report",
    "teacher": "fine-tune the teacher where the config asks for it",
    "distill": "one student at the configured temperature and alpha",
    "tune": "the sweep over students",
    "evaluate": "the winner on the test split, its package and the report",
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `kdray`."""
    options = _parser().parse_args(arguments)
    sys.exit(guarded(lambda: options.act(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kdray", description="Distil a large transformer into a small one on Ray, and serve it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=textwrap.dedent("""\
            Start with:   kdray run jobs/configs/quickstart.yaml
            All settings: kdray config --explain
            Ray: joins the cluster of RAY_ADDRESS, else starts one on this machine."""))
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for stage, text in STAGES.items():
        verb = verbs.add_parser(stage, help=text, description=f"{text[0].upper()}{text[1:]}. Stages before it run "
                                "first; whatever exists is skipped.")
        _add_config(verb)
        verb.set_defaults(act=_stage, stage=stage)
    _add_cache(verbs)
    _add_submit(verbs)
    _add_show(verbs)
    _add_report(verbs)
    _add_serve(verbs)
    _add_k8s(verbs)
    _add_bench(verbs)
    _add_doctor(verbs)
    return parser


def _add_config(verb: argparse.ArgumentParser, **options: Any) -> None:
    verb.add_argument("config", help="YAML file", **options)
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                      help="settings to change, such as training.epochs=5 (kdray config --explain lists them)")


def _add_cache(verbs: Any) -> None:
    cache = verbs.add_parser("cache", help="the soft-target cache: fill, ls, show, verify, diff, gc").add_subparsers(
        required=True, metavar="COMMAND")
    fill = cache.add_parser("fill", help="run the teacher over every row that has no logits yet",
                            description="Run the teacher over every row that has no logits yet.")
    _add_config(fill)
    fill.set_defaults(act=_stage, stage="cache")
    _add_inspection(cache, "ls", "list the caches in a storage", 0, lambda at, o: at.list_caches(o.storage))
    _add_inspection(cache, "show", "key parts, lineage, and how the teacher does on the labels", 1,
                    lambda at, o: at.show_cache(o.storage, *o.keys))
    verify = _add_inspection(
        cache, "verify", "read every shard against its checksum, and run a sample through the teacher again", 1,
        lambda at, o: at.verify_cache(o.storage, *o.keys, o.rows, o.seed, o.teacher))
    verify.add_argument("--rows", type=_count, default=64,
                        help="rows to run again; 0 reads checksums only (default 64)")
    verify.add_argument("--seed", type=int, default=0, help="which rows (default 0)")
    verify.add_argument("--teacher", metavar="FOLDER", help="the teacher's folder, if it has moved")
    _add_inspection(cache, "diff", "what separates two caches: key parts, shards, logits", 2,
                    lambda at, o: at.diff_caches(o.storage, *o.keys))
    gc = _add_inspection(cache, "gc", "remove shards that no cache and no running fill names", 0,
                         lambda at, o: at.collect_garbage(o.storage, o.dry_run, o.grace))
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.add_argument("--grace", type=_hours, default=24, metavar="HOURS",
                    help="keep whatever changed, and what a fill wants that worked, within HOURS (default 24)")


def _add_inspection(cache: Any, name: str, text: str, keys: int, look: Any) -> argparse.ArgumentParser:
    """A verb on `keys` caches; `look` is given `kdray.inspection`, imported after parsing, and the options."""
    verb = cache.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    if keys:
        verb.add_argument("keys", nargs=keys, metavar="CACHE", help="key of a cache, or its beginning (kdray cache ls)")
    verb.add_argument("--storage", default="~/kdray", metavar="URI", help="folder or URI (default ~/kdray)")
    verb.set_defaults(act=_inspect, look=look)
    return verb


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not hours >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return hours


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and up to 1")
    return share


def _add_submit(verbs: Any) -> None:
    submit = verbs.add_parser(
        "submit", help="run a config as a Ray job on a cluster, and follow its log",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Run a config as a Ray job on a cluster, and follow its log until it ends. The config may lie anywhere: it
            goes with the job, checked and resolved, as do Python modules beside it where its data are package:MODULE:
            FUNCTION of one. The cluster needs kdray on its nodes, nothing else of this folder.

            Paths in the config (storage, data, models) must be URIs that all nodes reach, unless the cluster is this
            machine or --shared says that a folder is the same everywhere.

            The driver runs on a node that offers the resource `driver`, else on a worker node that is neither spot nor
            labelled kdray/group=teacher, and on the head only where there is no such node."""),
        epilog=textwrap.dedent("""\
            Once submitted, the job needs nothing from here: Ctrl-C ends the following alone and says how to stop the
            job, and the same command follows it again. After a job that failed or was stopped, the same command
            submits one that goes on from what is in storage.

            Exit status: that of the job (143 where it was stopped), 1 where none was submitted, 130 after Ctrl-C.

            A cluster with tokens asks for RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN, in the file of
            RAY_AUTH_TOKEN_PATH or in ~/.ray/auth_token.

            Such as:  kdray submit reviews.yaml search.trials=32 --address http://127.0.0.1:8265"""))
    _add_config(submit)
    submit.add_argument("--stage", default="run", choices=["run", "teacher", "cache", "distill", "tune", "evaluate"],
                        help="the last stage to run; those before it run first where they are missing (default: run, "
                        "all of them)")
    submit.add_argument("--address", metavar="URL", help="the dashboard (default: RAY_API_SERVER_ADDRESS, else "
                        "RAY_ADDRESS, else http://127.0.0.1:8265)")
    submit.add_argument("--shared", action="append", default=[], metavar="FOLDER",
                        help="paths below it are the same on every node; may be given again")
    submit.add_argument("--no-wait", action="store_true", help="print the job's id and end, without its log")
    submit.set_defaults(act=_submit)


def _add_show(verbs: Any) -> None:
    show = verbs.add_parser("config", help="print a config, resolved, or explain every setting",
                            description="Print the resolved config, or explain every setting.")
    _add_config(show, nargs="?")
    show.add_argument("--explain", action="store_true", help="list every setting with its default and meaning")
    show.set_defaults(act=_config)


def _add_report(verbs: Any) -> None:
    report = verbs.add_parser(
        "report", help="draw a run's report again, from its numbers",
        description="Draw a run's report again, from its numbers: nothing is trained or measured.")
    report.add_argument("run", help="folder or URI of a run, as `kdray run` prints it")
    report.add_argument("--out", type=Path, metavar="FILE", help="where to write the page (default ./NAME.html, NAME "
                        "being the run's)")
    report.set_defaults(act=_report)


def _add_serve(verbs: Any) -> None:
    serve = verbs.add_parser(
        "serve", help="host a run's winner over HTTP, or change what a running service answers with",
        description="Host a run's winner over HTTP until interrupted. With --promote, --canary, --back or --new-keys, "
        "change a running service instead, without a lost request.")
    serve.add_argument("run", nargs="?", help="folder or URI of a run, as `kdray run` prints it")
    serve.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                       help="settings of `serve` to change, such as port=8001")
    change = serve.add_mutually_exclusive_group()
    change.add_argument("--promote", action="store_const", dest="change", const="promote",
                        help="let the run's winner answer from now on, if it passes its parity sample")
    change.add_argument("--canary", type=_share, metavar="SHARE",
                        help="let the run's winner answer this share of the requests, such as 0.1")
    change.add_argument("--back", action="store_const", dest="change", const="back",
                        help="end the canary, or return to what answered before the last --promote")
    change.add_argument("--new-keys", metavar="FILE", nargs="?", const="",
                        help="let those ask who have a key of FILE (one a line) or of KDRAY_API_KEYS, and nobody else")
    serve.add_argument("--name", default="default", help="which student to change (default: default)")
    serve.add_argument("--port", type=_count, help="which service of this machine to change, where there are several")
    serve.set_defaults(act=_serve)


def _add_bench(verbs: Any) -> None:
    bench = verbs.add_parser(
        "bench", help="measure a run's winner in every backend on your texts, and say which to serve with",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Measure a run's winner in every backend that this machine has, on your own texts, and say which one to
            serve with. Run it where the service is to run, with nothing else beside it.

              texts/s    64 texts at a time, sorted into batches as the service does
              p50, p99   milliseconds that a text takes alone
              agreement  labels that are those of PyTorch in float32
              MB         the file that the backend reads

            These are the model's and the tokenizer's times, without HTTP. Contenders take turns in each of three
            rounds, and the best round of each counts; ratios are to what the settings lead to now. A model that is
            slow is timed on fewer of the texts; labels are compared on all."""),
        epilog=textwrap.dedent("""\
            What it says to use: the backend with most texts/s of those that give PyTorch's labels at least as often as
            today's does (two labels fewer are chance), or as --agreement says. What the settings lead to now stays
            where no other is over 5 % faster. Float32 of PyTorch is the yardstick, not the truth: where a label
            differs, either may be right, and the model card says what int8 costs in quality.

            Such as:  kdray bench ~/kdray/runs/reviews-1a2b3c4d num_cpus=2 --texts mine.txt"""))
    bench.add_argument("run", help="folder or URI of a run, as `kdray run` prints it")
    bench.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                       help="settings of `serve` to measure with, such as num_cpus=2, its threads")
    bench.add_argument("--texts", metavar="FILE", help="your texts: one a line, or CSV, TSV, JSON or Parquet "
                       "with the columns of the run's data, labels not needed (default: the run's test split)")
    bench.add_argument("--most", type=_count, default=1000, metavar="N",
                       help="texts to take at most, evenly spaced; 0 takes all (default 1000)")
    bench.add_argument("--agreement", type=_share, metavar="SHARE",
                       help="least agreement of what may be used, such as 0.99 (default: what today's backend has)")
    bench.set_defaults(act=_bench)


def _add_k8s(verbs: Any) -> None:
    k8s = verbs.add_parser("k8s", help="Kubernetes manifests for KubeRay: render, check").add_subparsers(
        required=True, metavar="COMMAND")
    render = k8s.add_parser("render", help="print an overlay of k8s/overlays, filled in and checked",
                            description="Print an overlay of k8s/overlays, filled in and checked, for "
                            "kubectl apply -f -. Needs kubectl or kustomize.")
    render.add_argument("overlay", help="a folder of k8s/overlays")
    for name, text in (("namespace", "namespace"), ("name", "name of the job or service"), ("image", "container image"),
                       ("run", "run to serve"), ("storage", "storage URI"), ("config", "YAML file of the run"),
                       ("service", "RayService that the nightly job promotes to (default kdray)")):
        render.add_argument(f"--{name}", help=text)
    render.add_argument("--with", dest="components", action="append", default=[], metavar="COMPONENT",
                        help="a folder of k8s/components to add; may be given again")
    render.add_argument("--root", default="k8s", metavar="FOLDER", help="where the overlays are (default k8s)")
    check = k8s.add_parser("check", help="say what is wrong with manifests",
                           description="Say what is wrong with manifests: unknown fields, the operator's rules, ours.")
    check.add_argument("files", nargs="+")
    for verb, act in ((render, _render), (check, _check)):
        verb.add_argument("--gate", dest="gates", action="append", default=[], metavar="GATE",
                          help="a feature gate that is on in the operator, and off by default; may be given again")
        verb.set_defaults(act=act)


def _add_doctor(verbs: Any) -> None:
    doctor = verbs.add_parser(
        "doctor", help="check this machine or a cluster, and say what to do",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Check what kdray needs, and say what to do where something is not as it should be.

              here          Python, packages, precision and GPUs, disk, shared memory, token, ports
              RAY_ADDRESS   every node of that cluster instead of ports: versions that differ from those here, GPUs that
                            Ray counts and torch does not see, shared memory, nodes that do not answer
              CONFIG        also: its data and models, its storage written, read and deleted from here and from every
                            node, its models the same on every node, room for what its stages ask for

            What would make a run wrong, or stop it halfway, is also checked when a run joins a cluster."""),
        epilog=textwrap.dedent("""\
            Exit status: 0 nothing is wrong, warnings allowed; 1 something is.

            As a job:  ray job submit --working-dir . -- kdray doctor jobs/configs/quickstart.yaml"""))
    _add_config(doctor, nargs="?")
    doctor.set_defaults(act=_doctor)


def _render(options: argparse.Namespace) -> None:
    from kdray.kubernetes.render import Values
    from kdray.kubernetes.verbs import manifests

    names = ("namespace", "name", "image", "run", "storage", "config", "service")
    values = Values(**{name: getattr(options, name) for name in names}, components=tuple(options.components))
    print(manifests(options.overlay, values, options.root, options.gates), end="")


def _check(options: argparse.Namespace) -> None:
    from kdray.kubernetes.verbs import check_files

    print(f"{check_files(options.files, options.gates)} documents are sound")


def _stage(options: argparse.Namespace) -> None:
    from kdray.config import load
    from kdray.stages import run_stage

    run_stage(options.stage, load(options.config, options.overrides))


def _submit(options: argparse.Namespace) -> int:
    from kdray.config import load
    from kdray.submission import submit

    return submit(load(options.config, options.overrides), options.stage, options.address, options.shared,
                  not options.no_wait, Path(options.config).parent)


def _inspect(options: argparse.Namespace) -> None:
    from kdray import inspection

    options.look(inspection, options)


def _config(options: argparse.Namespace) -> None:
    from kdray.config import dump, explain, load
    from kdray.errors import ConfigError

    if options.explain:
        for name, default, text in explain():
            print(f"{name} ({default})\n    {text}")
    elif options.config:
        print(dump(load(options.config, options.overrides)), end="")
    else:
        raise ConfigError("give a config file, or --explain")


def _report(options: argparse.Namespace) -> None:
    from kdray.stages import draw_report

    draw_report(options.run, options.out)


def _serve(options: argparse.Namespace) -> None:
    from kdray.errors import ConfigError
    from kdray.stages import change_keys, change_service, serve_run

    change = "canary" if options.canary is not None else "keys" if options.new_keys is not None else options.change
    if (options.run is None) != (change in ("back", "keys")):
        raise ConfigError("give a run" if options.run is None else "--back and --new-keys need no run: "
                          f"leave out {options.run}")
    if change is None:
        serve_run(options.run, options.overrides, blocking=True)
    elif options.overrides:
        raise ConfigError(f"{options.overrides[0]}: a running service keeps its settings; start it again for that")
    elif change == "keys":
        change_keys(options.new_keys or None, options.port)
    else:
        change_service(change, options.name, options.run, options.canary, options.port)


def _bench(options: argparse.Namespace) -> None:
    from kdray.stages import bench_run

    bench_run(options.run, options.overrides, options.texts, options.most, options.agreement)


def _doctor(options: argparse.Namespace) -> None:
    from kdray.config import load
    from kdray.doctor.verbs import doctor

    doctor(load(options.config, options.overrides) if options.config else None)


if __name__ == "__main__":
    main()
