"""The analysis: sentences follow the numbers, and say no more than one run can."""

import json
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from gradlib import analysis, claims, compare, findings, report, runs, wording
from gradlib.config import SOLUTIONS

#: mAP@0.5 and balanced accuracy of each solution, unless a test says otherwise.
SCORES = {
    "baseline": (0.40, 0.70),
    "gradnorm": (0.44, 0.77),
    "dual": (0.42, 0.63),
    "fusion": (0.41, 0.71),
    "detection-only": (0.40, None),
    "classification-only": (None, 0.70),
    "gradnorm-reported": (0.01, 0.70),
}
STEPS, EPOCHS = 100, 5


def write_run(folder, name, scores, seed=0, collapsed=False, classes=("AR", "MR"), conflict=0.1):
    """One run folder; `conflict` is the cosine of the neck, 0.3 that of the stages before."""
    solution = SOLUTIONS[name]
    tasks, n = solution.tasks, STEPS
    both = len(tasks) == 2 and solution.branch != "input"
    train = pd.DataFrame({"step": range(n), "epoch": np.arange(n) // (n // EPOCHS)})
    epochs = pd.DataFrame({"epoch": range(EPOCHS), "train_loss": 2.0, "valid_loss": 2.0})
    for task in tasks:
        off = collapsed and task == "detection"
        train[f"loss_{task}"] = 1.7 if off else np.linspace(2, 1, n)
        train[f"weight_{task}"] = np.where(np.arange(n) < 20, 1.0, 0.0) if off else 1.0
        train[f"lr_{task}"] = 1e-3
        epochs[f"train_loss_{task}"] = epochs[f"valid_loss_{task}"] = np.linspace(2, 1, EPOCHS)
    stages = [*(["p1", "p2", "p3"] if solution.branch == "p3" else ["p1", "p5", "neck"])] if both else []
    if both:
        train["share_detection"] = np.where(np.arange(n) < 20, 0.5, 0.0) if collapsed else 0.4
        train["norm_detection"] = train["norm_classification"] = 1.0
    cosines = {stage: conflict if stage == "neck" else 0.3 for stage in stages}
    probes = pd.DataFrame(
        {
            "step": i,
            "stage": stage,
            "kind": kind,
            "cosine": c,
            "conflict": int(c < 0),
            "magnitude_similarity": 0.9,
        }
        for i in (0, 50)
        for stage, c in cosines.items()
        for kind in ("conv", "norm")
    )
    run = folder / name / "fold=0" / f"seed={seed}"
    config = {
        "data": "phantom", "split": "patients", "fold": 0, "folds": 5, "seed": seed,
        "size": "n", "epochs": EPOCHS, "image_size": 64, "batch_size": 4, "device": "auto",
        "solution": asdict(solution),
        "classes": list(classes), "views": ["A4C", "PSAX"],
        "frames": {"train": 9, "valid": 3, "test": 3}, "patients": {"train": 3, "valid": 1, "test": 1},
    }  # fmt: skip
    environment = {"python": "3", "versions": {"torch": "2", "gradlib": "0"}, "git": {"revision": None}}
    names = ("map50_95", "precision", "recall", "f1", "detection_mse")
    test = {"map50": scores[0], **dict.fromkeys(names, scores[0])}
    test |= {"accuracy": scores[1], "balanced_accuracy": scores[1], "confidence": 0.2, "ap50": None}
    many = 2 if solution.branch == "input" else 1
    cost = {"parameters": 1000 * many, "macs": 1e6 * many, "peak_memory_mb": 10.0, "seconds": 5.0}
    runs.write_whole(run / "config.json", json.dumps(config))
    runs.write_whole(run / "environment.json", json.dumps(environment))
    runs.save_tables(run, {"steps": train, "probes": probes, "epochs": epochs})
    runs.write_whole(
        run / "metrics.json", json.dumps({"test": test, "cost": cost | {"seconds_per_epoch": 1.0}})
    )


def make(folder, names=tuple(SCORES), seeds=(0,), scores=None, **options):
    scores = SCORES | (scores or {})
    for name in names:
        for seed in seeds:
            own = {"collapsed": name == "gradnorm-reported", **options.get(name, {})}
            write_run(folder, name, scores[name], seed, **own)
    return runs.load(folder)


def everything(study) -> str:
    """All sections, as 03_analysis shows them."""
    joint = compare.joint(study)
    texts = [
        report.environment(study),
        *(report.solution(study, name) for name in ("gradnorm", "dual", *joint)),
    ]
    texts += [report.comparison(study, "gradnorm", "dual")]
    texts += [report.comparison(study, "baseline", name) for name in joint]
    sections = (analysis.interference, analysis.performance, analysis.efficiency, claims.conclusions)
    return "\n\n".join([*texts, *(f(study) for f in (*sections, analysis.summary, analysis.outlook))])


def reading(study, claim: str) -> str:
    """The last cell of the claim's row."""
    (line,) = (line for line in claims.conclusions(study).splitlines() if line.startswith(f"| {claim}"))
    return line.split(" | ")[-1].removesuffix(" |")


SUBSETS = [
    tuple(SCORES),
    ("baseline", "gradnorm"),
    ("dual",),
    ("gradnorm",),
    ("baseline",),
    ("detection-only",),
    ("detection-only", "classification-only", "fusion"),
]


@pytest.mark.parametrize(
    ("names", "seeds"), [*((names, (0,)) for names in SUBSETS), (SUBSETS[0], (0, 1)), (SUBSETS[1], (0, 1))]
)
def test_no_study_makes_the_report_overclaim_or_fail(tmp_path, names, seeds):
    text = everything(make(tmp_path, names, seeds))
    found = re.search(
        r"signific|solved|solves|\bprove[sn]?\b|success|clearly|outperform|superior", text, re.IGNORECASE
    )
    assert not found, found
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text)
    assert ("in this run" in text) == (seeds == (0,))
    # Sections are never empty: a heading is followed by text.
    lines = [line for line in text.splitlines() if line.strip()]
    assert not [
        a for a, b in zip(lines, [*lines[1:], "#"], strict=True) if a.startswith("#") and b.startswith("#")
    ]


@pytest.mark.parametrize("names", SUBSETS[1:], ids="+".join)
def test_what_is_missing_is_named(tmp_path, names):
    study = make(tmp_path, names)
    text = everything(study)
    for name in {"gradnorm", "dual", "baseline"} - {*names}:
        assert re.search(f"no complete run of [^:]*{name}", text)
    if "dual" not in names:
        assert reading(study, "Two backbones") == wording.UNKNOWN


def test_sentences_flip_with_the_numbers(tmp_path):
    up = make(tmp_path / "up")
    down = make(tmp_path / "down", scores={"gradnorm": (0.36, 0.77)})
    row = compare.comparison(up, "baseline", "gradnorm", ("map50",)).loc["map50"]
    # (0.44 - 0.40) / 0.40 = +10 %.
    assert wording.sentence(row, "baseline", "gradnorm") == (
        "**mAP@0.5**: 0.4000 for baseline, 0.4400 for gradnorm (+10.00%): higher for gradnorm in this run."
    )
    assert reading(up, "gradnorm: mAP rises") == "higher in this run"
    assert reading(down, "gradnorm: mAP rises") == wording.NOT
    assert reading(up, "dual suits") == wording.NOT  # behind in both
    assert "only for mAP@0.5" in reading(make(tmp_path / "mixed", scores={"dual": (0.5, 0.63)}), "dual suits")
    assert "best mAP@0.5 gradnorm (0.4400)" in analysis.summary(up)
    assert "best mAP@0.5 dual (0.4200)" in analysis.summary(down)
    # delta_m of gradnorm: (0.44 / 0.40 - 1 + 0.77 / 0.70 - 1) / 2 = +10 %; then (-10 + 10) / 2 = 0.
    assert "above them: gradnorm (+10.0%)" in findings.gain(up).replace("baseline (+0.0%), ", "")
    assert findings.gain(down).index("not above") < findings.gain(down).index("gradnorm (+0.0%)")


def test_conflict_claims_follow_the_probes(tmp_path):
    claim = "GradNorm removes"
    fewer = make(tmp_path / "fewer", baseline={"conflict": -0.1})
    assert reading(fewer, claim) == "no conflict in this run"
    assert "most often in neck (100%)" in findings.conflict(fewer, "baseline")
    more = make(tmp_path / "more", gradnorm={"conflict": -0.1})
    assert reading(more, claim) == wording.NOT
    assert reading(
        make(tmp_path / "off", baseline={"conflict": -0.1}, gradnorm={"collapsed": True}), claim
    ) == (f"{wording.NOT}: a task collapsed")


def test_a_collapse_is_called_one(tmp_path):
    study = make(tmp_path / "off", gradnorm={"collapsed": True})
    assert reading(study, "gradnorm: both tasks are trained") == f"{wording.NOT}: **detection collapsed**"
    assert reading(study, "Weights that go to 0") == "**a collapse**, not a balance"
    assert "**collapse** in this run" in findings.balance(study, "gradnorm")
    assert "**collapse** in this run" in report.comparison(study, "gradnorm", "dual")
    fine = make(tmp_path / "fine", **{"gradnorm-reported": {"collapsed": False}})
    assert "collapse**" not in everything(fine)
    assert "No task collapsed" in findings.balance(fine, "gradnorm")
    assert "**Collapse**: none in baseline, gradnorm, fusion, gradnorm-reported." in analysis.summary(fine)


def test_several_runs_say_in_how_many(tmp_path):
    for seed, scores in enumerate(((0.50, 0.7), (0.38, 0.7))):
        write_run(tmp_path, "baseline", (0.40, 0.7), seed)
        write_run(tmp_path, "gradnorm", scores, seed)
    # Means 0.40 and 0.44; ahead with seed 0 only.
    text = everything(runs.load(tmp_path))
    assert "higher for gradnorm on the mean over 2 runs, and in 1 of 2" in text


def test_two_backbones_are_no_measured_success(tmp_path):
    study = make(tmp_path)
    assert reading(study, "Two backbones") == "true by construction, not a measurement"
    assert re.search(r"of [\d,]+ parameters 0 are reached by both", analysis.interference(study))


def test_novelty_is_nothing_that_runs_show(tmp_path):
    rows = claims.conclusions(make(tmp_path, ("baseline",))).splitlines()
    assert sum(wording.NOT_FOR_RUNS in row for row in rows) == 3


def test_the_outlook_says_which_data_were_used(tmp_path):
    study = make(tmp_path, ("baseline",))
    assert "phantom (synthetic)" in analysis.outlook(study)
    path = tmp_path / "baseline/fold=0/seed=0/config.json"
    path.write_text(path.read_text().replace('"phantom"', '"/somewhere/private/mine/data.yaml"'))
    assert "mine/data.yaml (given by its path, not made by gradlib)" in analysis.outlook(study)
    assert "private" not in everything(study)


def test_the_environment_says_what_the_weights_started_from(tmp_path):
    study = make(tmp_path, ("baseline",))
    assert "YOLOv5n, 64 px, starting from nothing" in report.environment(study)
    path = tmp_path / "baseline/fold=0/seed=0/config.json"
    given = {**json.loads(path.read_text()), "pretrained": "/somewhere/private/yolov5n.pt"}
    path.write_text(json.dumps(given))
    assert "starting from yolov5n.pt" in report.environment(study)
    assert "private" not in report.environment(study)


def test_names_from_the_data_cannot_become_markup(tmp_path):
    write_run(tmp_path, "baseline", (0.4, 0.7), classes=("<b>A|R</b>", "M*R_"))
    text = report.environment(runs.load(tmp_path))
    assert "&lt;b&gt;A\\|R&lt;/b&gt;, M\\*R\\_" in text
    assert wording.escape("a\nb $x$ [l](u) `c`") == "a b \\$x\\$ \\[l\\](u) \\`c\\`"
