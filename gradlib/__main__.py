"""The command line: `python -m gradlib` with `study`, `check`, `compare` or `export`."""

import argparse
import io
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradlib import __version__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gradlib", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    study = commands.add_parser("study", help="run a study: its runs, comparison and analysis")
    study.add_argument("file", help="a study file, as notebooks/demo.yaml")
    where = study.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_count, help="runs at a time (default: one a GPU, else one a core)")
    where.add_argument("--scheduler", help="use the workers of this Dask scheduler: tcp://host:8786")
    where.add_argument("--status", action="store_true", help="say how far the study is, and run nothing")
    check = commands.add_parser("check", help="say what is wrong with a data set, before it is trained on")
    check.add_argument("data", help="a data.yaml, or its folder")
    check.add_argument("--strict", action="store_true", help="refuse what would be skipped or guessed")
    compare = commands.add_parser("compare", help="compare two detectors' COCO results, over patients")
    compare.add_argument("truth", help="COCO annotations, a JSON file")
    compare.add_argument("results", nargs=2, help="COCO results, a JSON file of each detector")
    compare.add_argument("--patients", required=True, help="a CSV table with columns image and patient")
    compare.add_argument("--margin", type=float, help="a smaller difference of mAP counts as none")
    export = commands.add_parser("export", help="write a run's detector for YOLOv5's own code")
    export.add_argument("run", help="a run folder: runs/<study>/<solution>/fold=<k>/seed=<s>")
    export.add_argument("file", help="the file to write: a state dict with YOLOv5's names")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 1 if a notebook failed or data has faults, 2 if the request is wrong."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, io.StringIO())
        else:  # a console may lack a name's letters
            getattr(sys, name).reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        status = COMMANDS[options.command](options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:  # a wrong request, a full disk: a traceback would not help
        print(f"gradlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gradlib: stopped; complete runs are kept, start again to go on", file=sys.stderr)
        return 130


def _study(options: argparse.Namespace) -> int:
    # Imported here, so that `--help` answers at once.
    from gradlib.study.spec import read_spec

    spec = read_spec(options.file)
    if options.status:
        from gradlib.study.status import describe_status

        print(describe_status(spec))
        return 0
    from gradlib.study.driver import run_study

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    return run_study(spec, options.workers, options.scheduler)


def _check(options: argparse.Namespace) -> int:
    from gradlib.data import faults
    from gradlib.data.dataset import read_dataset
    from gradlib.data.files import printable

    try:
        dataset = read_dataset(Path(options.data).absolute(), options.strict)
    except faults.Refused as error:
        print(faults.describe(error.problems))
        raise
    frames, boxes = dataset.frames, sum(len(frame.boxes) for frame in dataset.frames)
    print(faults.describe(dataset.problems))
    print(f"{faults.counted(len(frames), 'frames')}, {faults.counted(boxes, 'boxes')}")
    views = [dataset.views[frame.view] for frame in frames if frame.view >= 0]
    groups = {"parts": [frame.part for frame in frames], "patients": [frame.patient for frame in frames]}
    for what, names in (groups | {"views": views}).items():
        counts = Counter(names).most_common()
        shown = ", ".join(f"{name} {count}" for name, count in counts[:6]) + ", ..." * (len(counts) > 6)
        print(faults.counted(len(counts), what) + printable(f": {shown}" * bool(counts)))
    return int(bool(dataset.problems))


def _compare(options: argparse.Namespace) -> int:
    from gradlib.evidence.coco import compare_detectors, read_coco
    from gradlib.evidence.tables import PERFORMANCE

    predictions = read_coco(Path(options.truth), [*map(Path, options.results)], Path(options.patients))
    names = [Path(one).stem for one in options.results]
    for metric, row in (compared := compare_detectors(predictions, options.margin)).iterrows():
        for name, one in zip((*names, "second minus first"), row, strict=True):
            sign = "+" if name == "second minus first" else ""
            line = f"{PERFORMANCE[metric].label} of {name}: {one.value:{sign}.3f}"
            print(f"{line} [{one.low:{sign}.3f}, {one.high:{sign}.3f}]" + f": {one.verdict()}" * bool(sign))
    margins = " and ".join(f"{one.margin:g}" for one in compared["difference"])
    print(f"95 % intervals over {one.patients} patients, {len(predictions[0])} images; margins {margins}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from gradlib.model.checkpoints import export
    from gradlib.runs.read import load_model
    from gradlib.runs.write import save_weights

    save_weights(Path(options.file), export(load_model(options.run)))
    print(options.file)
    return 0


COMMANDS = {"study": _study, "check": _check, "compare": _compare, "export": _export}

if __name__ == "__main__":
    sys.exit(main())
