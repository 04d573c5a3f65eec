"""What a run writes it can read, whatever it was given; and what damages a run folder takes no study down.

GRADLIB_FUZZ_MINUTES: how long each of the two properties is tried; a handful of cases without it.
"""

import contextlib
import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as limits
from PIL import Image

from gradlib.config import BRANCHES, OWN_BALANCERS, RANDOM, SOLUTIONS, torchjd_methods
from gradlib.runs import lock
from gradlib.runs.read import load_study
from gradlib.runs.schema import TABLES

MINUTES = float(os.environ.get("GRADLIB_FUZZ_MINUTES", "0"))
NAMES = [
    "AR",
    "all",
    "none",
    "frames",
    "patients",
    "view",
    "boxes",
    "a|b",
    "*x*",
    "梯度",
    "map50",
    "(none)",
    "nan",
]
NEEDED = ("config.json", "environment.json", "metrics.json", "predictions.json", "steps.csv", "epochs.csv")


def one_of_text(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """A value, or the text that papermill hands on for it."""
    return strategy | strategy.map(str)


RATES = st.floats(1e-6, 0.02)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "bounds": st.sampled_from([[0.0, 2.0], [0.1, 4.0]]),
        "initial_losses": st.sampled_from([1, 2, [1.0, 1.0]]),
        "renormalise": st.booleans(),
    },
) | st.sampled_from(
    [
        *({"measure_at": place} for place in ("cut", "shared", "last", *BRANCHES[1:4])),
        {"measure_at": "shared", "norms": "unbiased"},
        {"norms": "batch"},
    ]
)
MAPPINGS = st.builds(
    lambda branch, balancer, weights, options, width: dict(
        name="drawn",
        branch=branch,
        balancer="fixed" if branch == "input" else balancer,
        weights=weights,
        options=options if balancer == "gradnorm" and branch != "input" else {},
        width=width,
    ),
    st.sampled_from([*BRANCHES, RANDOM]),
    st.sampled_from([*OWN_BALANCERS, *torchjd_methods()]),
    st.lists(st.floats(0, 4), min_size=2, max_size=2).filter(any),
    OPTIONS,
    st.sampled_from([0.5, 1.0]),
)
ALONE = [name for name, solution in SOLUTIONS.items() if not solution.depends_on]
PARAMETERS = st.fixed_dictionaries(
    {
        "solution": st.sampled_from(ALONE) | MAPPINGS,
        "image_size": one_of_text(st.sampled_from([64, 96, 32])),
        "epochs": one_of_text(st.just(1)),
        "batch_size": one_of_text(st.sampled_from([2, 3, 4, 1, 6])),
        "probe_every": one_of_text(st.integers(0, 2)),
        "interactive": st.sampled_from([False, "false", "no"]),
    },
    optional={
        "strict": st.sampled_from([False, "no"]),
        "split": st.sampled_from(["patients", "published"]),
        "learning_rate": one_of_text(RATES) | st.just(1.0),
        "learning_rate_classification": one_of_text(RATES),
        "learning_rate_final": one_of_text(RATES),
        "view_balance": one_of_text(st.floats(0, 1)),
        "alpha": one_of_text(st.floats(0, 10)),
        "augment": one_of_text(st.booleans()),
        "seed": one_of_text(st.integers(0, 2**32 - 1)),
        "precision": st.sampled_from(["32-true", "bf16-mixed"]),
        "device": st.sampled_from(["auto", "cpu"]),
    },
)
DATA = st.fixed_dictionaries(
    {
        "classes": st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
        "views": st.sampled_from([2, 2, 3, 3, 1, 0]).flatmap(
            lambda count: st.lists(st.sampled_from(NAMES), min_size=count, max_size=count, unique=True)
        ),
        "patients": st.sampled_from([9, 8, 7, 6, 4, 3]),
        "frames": st.sampled_from([4, 3, 2, 1]),
        "boxes": st.sampled_from([2, 2, 2, 1, 0]),  # of a frame, at most
        "seed": st.integers(0, 99),
    }
)


def write_set(folder: Path, classes: list, views: list, patients: int, frames: int, boxes: int, seed: int):
    """A data set of small noisy images: its data.yaml names classes and views, and a third has no row."""
    rng = np.random.default_rng(seed)
    shutil.rmtree(folder, ignore_errors=True)
    for index in range(patients * frames):
        part = ("train", "valid", "test")[index % 3]
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        stem = f"p{index // frames}-v-{index}"
        Image.fromarray(rng.integers(0, 255, (24, 40, 3), np.uint8)).save(
            folder / f"images/{part}/{stem}.png"
        )
        rows = [
            f"{rng.integers(len(classes))} 0.5 0.5 {rng.uniform(0.05, 0.9):.3f} {rng.uniform(0.05, 0.9):.3f}"
            for _ in range(rng.integers(boxes + 1))
        ]
        if views and rng.random() < 0.7:
            rows += ["", " ".join(map(str, np.eye(len(views), dtype=int)[rng.integers(len(views))]))]
        (folder / f"labels/{part}/{stem}.txt").write_text("\n".join(rows))
    content = {part: f"images/{part}" for part in ("train", "valid", "test")} | {"names": classes}
    content |= {"image_classes": views} if views else {}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """An empty project folder as the current folder, in which one thread computes."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").mkdir()
    (folder / "notebooks/01_solution.ipynb").touch()  # by which it is known
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(folder):
        yield folder
    torch.set_num_threads(threads)


def release_locks() -> None:
    for held in lock._locks.values():
        held.release(force=True)
    lock._locks.clear()


def tried(strategy: st.SearchStrategy, case, examples: int) -> int:
    """Try `case` on this many values, or for GRADLIB_FUZZ_MINUTES; how many there were."""
    end, count, start = time.monotonic() + 60 * MINUTES, 0, 0

    def run(drawn):
        nonlocal count
        if not MINUTES or time.monotonic() < end:
            case(drawn)
            count += 1

    while not start or time.monotonic() < end:
        options = dict(max_examples=200 if MINUTES else examples, deadline=None, database=None)
        limited = limits(**options, suppress_health_check=list(HealthCheck))
        seed(start)(limited(given(strategy)(run)))()
        start += 1
    return count


def check_one_line(error: Exception) -> None:
    assert "\n" not in str(error) and len(str(error)) < 1000 and str(error), repr(error)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")  # cvxpy, in NashMTL
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # and numpy, in its solver
def test_what_a_run_writes_it_can_read(project, run_notebook, capsys):
    outcomes = Counter()

    def case(drawn):
        shutil.rmtree(project / "runs", ignore_errors=True)
        write_set(project / "set", **drawn[0])
        ended = []
        for parameters in drawn[1:]:
            names = {"data": "set/data.yaml", "folds": 2, "study": "drawn"} | parameters
            try:
                ended.append(run_notebook("01_solution", **names)["run"].path)
                outcomes["ended"] += 1
            except (ValueError, FloatingPointError) as error:
                check_one_line(error)
                outcomes[f"refused: {type(error).__name__}"] += 1
            finally:
                release_locks()
        if not ended:
            return
        study = load_study("runs/drawn")
        assert study.unreadable == [] and len(study.runs) + len(study.published) == len({*ended})
        reference, other = (path.parts[-3] for path in (ended[0], ended[-1]))
        run_notebook(
            "02_compare", study="drawn", reference=reference, other=other, interactive="false", examples=2
        )
        run_notebook("03_analysis", study="drawn", language="en" if len(ended) > 1 else "zh-Hant")
        outcomes["studies read"] += 1

    count = tried(st.tuples(DATA, PARAMETERS, PARAMETERS), case, 3)
    with capsys.disabled() if MINUTES else contextlib.nullcontext():
        print(f"\n{count} studies drawn: {dict(outcomes)}")
    assert outcomes["studies read"] > count / 4


@pytest.fixture(scope="module")
def healthy(project, run_notebook):
    """A study of three runs that trained on jets and views."""
    data = dict(classes=["AR", "MR"], views=["A4C", "PLAX"], patients=6, frames=3, boxes=2, seed=0)
    write_set(project / "set", **data)
    for solution in ("baseline", "gradnorm", "dual"):
        run_notebook("01_solution", **HEALTHY, solution=solution)
    release_locks()
    (project / "runs").rename(project / "healthy")
    return project / "healthy/drawn"


HEALTHY = dict(data="set/data.yaml", study="drawn", folds=2, image_size=64, epochs=1, batch_size=4)
HEALTHY |= dict(probe_every=1, interactive=False)
FILES = ("config.json", "environment.json", "metrics.json", "predictions.json", "model.pt")
FILES += tuple(f"{name}.csv" for name in TABLES)


def without_column(content: bytes, at: float) -> bytes:
    """A table without one of its columns."""
    rows = [line.split(b",") for line in content.splitlines()]
    gone = int(at * len(rows[0])) if rows else 0
    return b"".join(b",".join(row[:gone] + row[gone + 1 :]) + b"\n" for row in rows)


def without_line(content: bytes, at: float) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[int(at * len(lines)) : int(at * len(lines)) + 1]
    return b"".join(lines)


#: What the content of a file becomes, which is damaged at a part of its length; None: it is gone.
DAMAGES = {
    "removed": lambda content, at: None,
    "emptied": lambda content, at: b"",
    "cut": lambda content, at: content[: int(at * len(content))],
    "header only": lambda content, at: content.partition(b"\n")[0] + b"\n",
    "byte changed": lambda content, at: (
        content[: int(at * len(content))] + b"7" + content[int(at * len(content)) + 1 :]
    ),
    "bytes lost": lambda content, at: (
        content[: int(at * len(content))] + content[int(at * len(content)) + 5 :]
    ),
    "line lost": without_line,
    "column lost": without_column,
    "twice": lambda content, at: content * 2,
    "list": lambda content, at: b"[]",
    "mapping": lambda content, at: b"{}",
}


def damage(run: Path, name: str, kind: str, at: float) -> None:
    content = DAMAGES[kind]((run / name).read_bytes(), at)
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)


def read_damaged(study: Path, run_notebook) -> None:
    """Each run is read, or named as one that cannot be or has not ended; both notebooks say so and end."""
    found = load_study(study)
    assert len(found.runs) + len(found.unreadable) + len(found.incomplete) == len([*study.glob("*/*/seed=*")])
    assert all(re.match(r"[\w-]+/fold=0/seed=\d+/", line) and "\n" not in line for line in found.unreadable)
    for name in ("02_compare", "03_analysis"):
        run_notebook(name, study=study.name, interactive=False, examples=2)


def test_runs_damaged_in_every_file_take_no_study_down(healthy, project, run_notebook):
    study = project / "runs/many"
    shutil.copytree(healthy, study)
    cases = [(name, kind) for name in FILES for kind in ("removed", "emptied", "cut")]
    for number, (name, kind) in enumerate(cases, 1):
        run = study / f"gradnorm/fold=0/seed={number}"
        shutil.copytree(healthy / "gradnorm/fold=0/seed=0", run)
        damage(run, name, kind, 0.6)
    read_damaged(study, run_notebook)
    lost = [name in NEEDED or (kind == "cut" and name != "model.pt") for name, kind in cases]
    left = set(load_study(study).runs["seed"]) - {0}
    assert left == {number for number, gone in enumerate(lost, 1) if not gone}


@pytest.mark.skipif(not MINUTES, reason="GRADLIB_FUZZ_MINUTES is not set")
def test_damage_takes_no_study_down(healthy, project, run_notebook, capsys):
    def case(drawn):
        solution, name, kind, at = drawn
        study = project / "runs/damaged"
        shutil.rmtree(study, ignore_errors=True)
        shutil.copytree(healthy, study)
        damage(study / solution / "fold=0/seed=0", name, kind, at)
        read_damaged(study, run_notebook)

    solutions, place = st.sampled_from(["baseline", "gradnorm", "dual"]), st.floats(0, 1, exclude_max=True)
    drawn = st.tuples(solutions, st.sampled_from(FILES), st.sampled_from([*DAMAGES]), place)
    count = tried(drawn, case, 0)
    with capsys.disabled():
        print(f"\n{count} damaged studies read")
    assert count
