"""The analysis: invented runs with the opposite result give the opposite sentences, in both languages."""

import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gradlib.config import SOLUTIONS
from gradlib.evidence import controls
from gradlib.plots.language import LANGUAGES
from gradlib.report import Analysis, escape, facts
from gradlib.report.analysis import environment
from gradlib.report.reference_report import CLAIMS, Claim
from gradlib.runs.read import load_study
from gradlib.runs.write import write_whole
from gradlib.train import metrics

PROBES = 12
STEPS, EPOCHS, PATIENTS = 50, 5, 60
BOX, FAR = [0.5, 0.5, 0.4, 0.4], [0.9, 0.1, 0.1, 0.1]
#: How much each solution knows, of boxes and of views, in a study where every remedy helps.
HELPS = {
    "baseline": 0.4,
    "detection-only": 0.55,
    "classification-only": 0.55,
    "gradnorm-reported": 0.4,
    "static-1-3": 0.5,
    "gradnorm-static": 0.5,
    "dual-equal": 0.6,
    "dual": 0.65,
    "gradnorm": 0.8,
    "fusion": 0.97,
}
HARMS = {name: 1.37 - skill for name, skill in HELPS.items()}


def images(skill: float, detects=True, names=True, fold=0, extra=0) -> list[dict]:
    """Predictions on the patients of a fold: so many of the boxes found and of the views right, by rank."""
    out = []
    for patient in range(PATIENTS):
        good = (patient + 0.5) / PATIENTS < skill
        found = [[0, 0.9, *(BOX if good else FAR)]] + [[0, 0.8, *FAR]] * extra
        out.append(
            {
                "image": f"{fold}-{patient}.png",
                "patient": f"{fold}-{patient}",
                "view": patient % 2,
                "view_scores": [float((patient % 2 == view) == good) for view in (0, 1)] if names else None,
                "boxes": [[0, *BOX]],
                "detections": found if detects else [],
                "view_from_jet": [1.0, 0.0],
            }
        )
    return out


def write_run(folder, name, skill, fold=0, seed=0, **options):
    """One run folder. Options: collapsed, rough (losses that jump and do not fall), conflict (cosine of
    all stages), share (detection's, at the end), classes, split, parameters, extra (false detections),
    skipped (what of the data was left out)."""
    solution = SOLUTIONS.get(name, SOLUTIONS["baseline"])
    tasks, jitter = solution.tasks, 0.001 * (fold + 3 * seed)
    both, collapsed = len(tasks) == 2 and solution.branch != "input", options.get("collapsed", False)
    train = pd.DataFrame({"step": range(STEPS), "epoch": np.arange(STEPS) // (STEPS // EPOCHS)})
    epochs = pd.DataFrame({"epoch": range(EPOCHS), "train_loss": 2.0, "valid_loss": 2.0})
    rough = [1.0, 2.0, 1.0, 2.0, 1.5] if options.get("rough") else np.linspace(2, 1, EPOCHS)
    for task in tasks:
        off = collapsed and task == "detection"
        train[f"loss_{task}"] = 1.7 if off else np.linspace(2, 1, STEPS)
        train[f"weight_{task}"] = np.where(np.arange(STEPS) < 10, 1.0, 0.0) if off else 1.0
        train[f"lr_{task}"] = 1e-3
        epochs[f"train_loss_{task}"] = epochs[f"valid_loss_{task}"] = rough
    epochs["map50"], epochs["balanced_accuracy"] = skill, skill
    stages = [*(["p1", "p2", "p3"] if solution.branch == "p3" else ["p1", "p5", "neck"])] if both else []
    if both:
        end = 0.001 if collapsed else options.get("share", 0.4) + jitter
        train["share_detection"] = np.where(np.arange(STEPS) < 10, 0.5, end)
        train["norm_detection"] = train["norm_classification"] = 1.0
    rho, wave = options.get("conflict", 0.1) + jitter, np.resize([0.05, -0.05, 0.02, -0.02], PROBES)
    probes = pd.DataFrame(
        {
            "step": i,
            "stage": stage,
            "kind": kind,
            "fraction": 0.0,
            "cosine": rho / 5,
            "conflict": int(rho < 0),
        }
        | {
            "signal_detection": 1.0,
            "signal_classification": 1 + wave[i],
            "cross_detection_classification": rho,
        }
        | {"square_detection": 20.0, "square_classification": 20.0, "same_detection_classification": rho + 1}
        | {"magnitude_similarity": 0.9, "share_detection": 0.5}
        for i in range(PROBES)
        for stage in stages
        for kind in ("conv", "norm")
    )
    # One probe against the others, so that rates differ from run to run.
    if len(probes):
        probes.loc[probes.index[: 2 * ((fold + seed) % 2)], "conflict"] ^= 1
        probes["cross_detection_classification"] += wave[probes["step"]]
    run = folder / name / f"fold={fold}" / f"seed={seed}"
    parts = {"train": 9, "valid": 3, "test": PATIENTS}
    config = {
        "data": "phantom", "split": options.get("split", "patients"), "fold": fold, "folds": 5, "seed": seed,
        "size": "n", "epochs": EPOCHS, "image_size": 64, "batch_size": 4, "device": "auto", "problems": 0,
        "precision": "32-true", "solution": asdict(solution) | {"name": name},
        "classes": list(options.get("classes", ("AR",))), "views": options.get("views", ["A4C", "PSAX"]),
        "frames": parts, "patients": parts,
    }  # fmt: skip
    config |= {"skipped": options["skipped"]} if "skipped" in options else {}  # earlier runs do not say it
    kept = images(skill, "detection" in tasks, "classification" in tasks, fold, options.get("extra", 0))
    if not config["views"]:
        kept = [entry | {"view": -1, "view_from_jet": []} for entry in kept]
    test = {"confidence": None}
    if "detection" in tasks:
        test |= metrics.detection_metrics(kept, config["classes"], 0.5)
    if "classification" in tasks:
        test |= metrics.classification_metrics(kept)
    size = options.get("parameters", 1000)
    counts = (size // 2, size // 4, size // 4) if both else (0, size // 2, size // 2)
    names = ("parameters_shared", "parameters_detection", "parameters_classification")
    cost = dict(zip(names, counts, strict=True))
    cost |= {"parameters": size, "macs": 1e3 * size}
    cost |= {"peak_memory_mb": 10.0, "seconds": 5.0, "seconds_per_epoch": 1.0 + jitter}
    environment = {"python": "3", "versions": {"torch": "2", "gradlib": "0"}, "git": {"revision": None}}
    write_whole(run / "config.json", json.dumps(config))
    write_whole(run / "environment.json", json.dumps(environment))
    write_whole(run / "predictions.json", json.dumps(kept))
    for name, table in {"steps": train, "probes": probes, "epochs": epochs}.items():
        table.to_csv(run / f"{name}.csv", index=False)
    write_whole(run / "metrics.json", json.dumps({"test": test, "cost": cost}))


def make(folder, skills, folds=(0, 1, 2), seeds=(0, 1), **options):
    for name, skill in skills.items():
        for fold in folds:
            for seed in seeds:
                write_run(folder, name, skill, fold, seed, **options.get(name, {}))
    return controls.with_controls(load_study(folder))


EVIDENCE = {}


def told(study, language="en") -> Analysis:
    a = Analysis(study, language)
    # The intervals are the same in every language: patients are resampled once a study.
    a.__dict__["evidence"] = EVIDENCE.setdefault(study.folder, a.evidence)
    return a


def everything(a: Analysis) -> str:
    """All sections, as 03_analysis shows them."""
    sections = (
        *(("answers",), ("environment",), ("solution", "gradnorm"), ("solution", "dual"), ("overview",)),
        *(("comparison", "gradnorm", "dual"), ("gains",), ("interference",)),
        *(("performance",), ("efficiency",), ("leakage",), ("conclusions",), ("summary",), ("power",)),
        ("outlook",),
    )
    return "\n\n".join(a.section(*section) for section in sections)


def readings(a: Analysis) -> dict[str, str]:
    """How each claim reads, by its key."""
    return {one.key: one.reading for one in a.claims}


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helps")
    write_run(folder, "leaking", 0.95, split="published")
    return make(
        folder,
        HELPS,
        baseline={"conflict": -0.3, "share": 0.9},
        gradnorm={"conflict": 0.3, "share": 0.5},
        dual={"parameters": 2000},
        **{"gradnorm-reported": {"collapsed": True}},
    )


@pytest.fixture(scope="module")
def harms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harms")
    write_run(folder, "leaking", 0.05, split="published")
    return make(
        folder,
        HARMS,
        baseline={"conflict": 0.3, "share": 0.5},
        gradnorm={"conflict": -0.3, "share": 0.9, "rough": True},
        dual={"parameters": 500, "rough": True},
        **{"gradnorm-reported": {"share": 0.5}},
    )


@pytest.mark.parametrize(
    ("skipped", "said"),
    [
        ([{"images": 2, "rows": 3}] * 2, "the same in all runs: images 2, rows of labels 3."),
        ([{}, {}], "Nothing was left out of the data."),
        ([{"images": 2}, {}], "differs between the runs (images 2; none)"),
        ([None, None], None),
    ],
)
def test_what_was_left_out_of_the_data_is_said(tmp_path, skipped, said):
    for seed, one in enumerate(skipped):
        write_run(tmp_path, "baseline", 0.5, 0, seed, **({} if one is None else {"skipped": one}))
    text = told(controls.with_controls(load_study(tmp_path))).section("environment")
    assert "left out" not in text if said is None else said in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("verdicts", "below", "reading"),
    [
        (["no gain that matters"], False, "excluded"),
        (["no loss that matters"], False, "undecided"),
        (["no loss that matters"], True, "excluded"),
        (["better", "equivalent"], False, "excluded"),
        (["equivalent", "equivalent"], False, "equivalent"),
        (["no gain that matters", "worse"], False, "contradicted"),
        (["better", "undecided"], False, "undecided"),
        ([], False, "undecided"),
    ],
)
def test_a_claim_that_cannot_hold_by_its_margin_is_excluded(verdicts, below, reading):
    figures = [SimpleNamespace(verdict=verdict) for verdict in verdicts]
    assert Claim("one", below=below).judge(figures) == reading


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_cost_that_was_not_measured_is_left_out(helps, language):
    missing = dict.fromkeys(("peak_memory_mb", "seconds", "seconds_per_epoch"), np.nan)
    a, known = Analysis(replace(helps, runs=helps.runs.assign(**missing)), language), told(helps, language)
    memory, price = {
        "en": ("Memory:", "Against baseline, dual takes 2.00 times the parameters, 2.00 times the MACs."),
        "zh-Hant": ("記憶體效率：", "與 baseline 相比，dual 需要參數 2.00 倍、乘加運算 2.00 倍。"),
    }[language]
    for one, measured in ((known, True), (a, False)):
        assert (memory in one.section("efficiency")) == measured
        assert one.section("comparison", "gradnorm", "dual").count("\n| **") == 10 + 3 * measured
        assert (price in one.section("interference")) != measured


#: Claims that are carried where every remedy helps, and contradicted where each harms.
OPPOSITE = {
    *("gradients_oppose", "sharing_harms", "fewer_conflicts", "balances", "balance_helps", "moving_helps"),
    *("balance_beats_tuned", "separation_helps", "separation_beats_size", "fusion_beats_gradnorm"),
    *("fusion_beats_dual", "map_rises.gradnorm", "map_rises.dual", "gradnorm_map", "gradnorm_f1"),
    *("stable.gradnorm", "stable.dual", "trained.gradnorm", "trained.dual", "gradnorm_lean"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_opposite_runs_give_opposite_claims(helps, harms, language):
    up, down = readings(told(helps, language)), readings(told(harms, language))
    assert {key: up[key] for key in OPPOSITE} == dict.fromkeys(OPPOSITE, "supported")
    assert {key: down[key] for key in OPPOSITE} == dict.fromkeys(OPPOSITE, "contradicted")
    assert (up["dual_precise"], down["dual_precise"]) == ("contradicted", "supported")
    assert (up["zero_is_balance"], down["zero_is_balance"]) == ("contradicted", "equivalent")
    assert up["dual_removes"] == down["dual_removes"] == "by_construction"
    assert [up[key] for key in ("novel", "practice", "transfer")] == ["not_for_runs"] * 3
    assert (
        set(up)
        == set(down)
        == OPPOSITE
        | {
            *("dual_precise", "zero_is_balance", "dual_removes", "novel", "practice", "transfer"),
            "gradnorm_precise",
        }
    )


#: By section: what one study says and the other does not (patterns), and the other way round.
SAID = {
    "en": {
        "comparison": (r"\| dual is worse \|", r"\| dual is better \|"),
        "gains": (r"`gradnorm`.*\| better \|", r"`gradnorm`.*\| worse \|"),
        "interference": (": higher", ": lower"),
        "performance": ("gradnorm is better", "gradnorm is worse"),
        "efficiency": ("Lowest Parameters: baseline, gradnorm,", r"Lowest Parameters: dual \(500\)"),
        "leakage": ("its figure measures memory", "figure is lower"),
        "conclusions": (r"\*\*a collapse", "No task collapsed"),
        "summary": (r"\*\*a collapse", "No task collapsed in any run"),
        "outlook": ("fusion is better", "fusion is worse"),
    },
    "zh-Hant": {
        "comparison": (r"\| dual 較差 \|", r"\| dual 較佳 \|"),
        "gains": (r"`gradnorm`.*\| 較佳 \|", r"`gradnorm`.*\| 較差 \|"),
        "interference": ("：較高", "：較低"),
        "performance": ("gradnorm 較佳", "gradnorm 較差"),
        "efficiency": ("參數數量最低：baseline、gradnorm、", "參數數量最低：dual（500）"),
        "leakage": ("它量到的是記憶", "公開切分的數值較低"),
        "conclusions": (r"\*\*崩潰", "沒有任務崩潰。"),
        "summary": (r"\*\*崩潰", "沒有任何訓練出現任務崩潰"),
        "outlook": ("fusion 較佳", "fusion 較差"),
    },
}


def test_what_sharing_costs_is_said_by_task_where_the_mean_of_both_does_not_say(helps):
    a = told(helps)
    undecided = replace(a.family["", "baseline", "delta_m"], p=1.0, p_equivalent=1.0)
    worse = replace(undecided, value=-0.2, p=0.001)
    for found, said in (({}, "**Undecided.**"), ({facts.SHARING[1]: worse}, "**Yes, in mAP\\@0.5:0.95.**")):
        a.__dict__["family"] = a.family | dict.fromkeys(facts.SHARING, undecided) | found
        line = a.section("answers").splitlines()[1]
        assert said in line
        assert line.count("baseline minus") == 2


@pytest.mark.parametrize("metric", facts.GAINED_IN)
def test_what_helps_is_said_on_the_mean_and_in_detection(helps, metric):
    a = told(helps)
    asked = {key for key in a.family if key[0] == "baseline" and key[2] in facts.GAINED_IN}
    undecided = replace(a.family["baseline", "dual", metric], p=1.0, p_equivalent=1.0)
    better = {("baseline", "dual", metric): replace(undecided, value=0.2, p=0.001)}
    where = {"delta_m": "", "map50_95": ", in mAP\\@0.5:0.95"}[metric]
    excluded = {key: replace(undecided, p_above=0.001) for key in asked if key[1] in ("dual", "fusion")}
    both = "**Nothing is shown to; a gain that matters is excluded for dual, fusion.**"
    for found, said in (
        ({}, "**Nothing is shown to.**"),
        (excluded, both),
        (better, f"**dual{where}.**"),
    ):
        a.__dict__["family"] = a.family | dict.fromkeys(asked, undecided) | found
        line = a.section("answers").splitlines()[2]
        assert said in line and line.count("**") == 4
        assert line.count("minus the baseline's") == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_opposite_runs_give_opposite_sentences(helps, harms, language):
    both = told(helps, language), told(harms, language)
    for section, (one, other) in SAID[language].items():
        texts = [
            a.section(
                section,
                *{"comparison": ("gradnorm", "dual")}.get(section, ()),
            )
            for a in both
        ]
        assert re.search(one, texts[0]) and not re.search(one, texts[1]), section
        assert re.search(other, texts[1]) and not re.search(other, texts[0]), section


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_undecided_is_said_and_what_it_would_take(tmp_path, language):
    a = told(make(tmp_path, {"baseline": 0.5, "gradnorm": 0.55, "dual": 0.5}, folds=(0,)), language)
    none, patients = {
        "en": ("undecided", "patients (here"),
        "zh-Hant": ("未決", "位病患（目前"),
    }[language]
    assert none in a.section("comparison", "gradnorm", "dual")
    assert patients in a.section("power")
    assert readings(a)["map_rises.gradnorm"] == "undecided"


def test_one_training_has_no_verdict(tmp_path):
    a = told(make(tmp_path, {"baseline": 0.2, "gradnorm": 0.9, "dual": 0.3}, folds=(0,), seeds=(0,)))
    text = everything(a)
    assert "one training each" in text and not re.search(r"gradnorm is (better|worse)", text)
    assert "another seed or another fold" in a.section("power")


def test_sizes_are_told_apart_by_one_training(tmp_path):
    one = {"folds": (0,), "seeds": (0,), "dual": {"parameters": 2000}}
    text = told(make(tmp_path, {"gradnorm": 0.5, "dual": 0.5}, **one)).section(
        "comparison", "gradnorm", "dual"
    )
    rows = dict(re.findall(r"\*\*(Parameters|MACs|Training time).*\| (.*?) \|(?:\n|$)", text))
    assert rows["Parameters"] == rows["MACs"] == "dual takes more" and "no verdict" in rows["Training time"]


def test_precision_that_is_paid_for_with_recall_is_a_trade_off(tmp_path):
    # gradnorm finds half of the boxes and little else; dual finds all, and twice as much that is wrong.
    a = told(make(tmp_path, {"gradnorm": 0.5, "dual": 1.0}, dual={"extra": 4}))
    assert readings(a)["gradnorm_precise"] == "supported"
    assert "precision is higher for gradnorm, recall for dual" in a.section("performance")


SUBSETS = [
    tuple(HELPS),
    ("baseline", "gradnorm"),
    ("dual",),
    ("gradnorm",),
    ("baseline",),
    ("detection-only",),
    ("detection-only", "classification-only", "fusion"),
]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_no_study_makes_the_analysis_overclaim_or_fail(tmp_path, names, language):
    a = told(make(tmp_path, {name: HELPS[name] for name in names}, folds=(0,), seeds=(0,)), language)
    text = everything(a)
    assert not re.search(r"signific|solved|\bprove[sn]?\b|success|clearly|outperform|顯著|成功|證明", text)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text)
    for name in {"gradnorm", "dual", "baseline"} - {*names}:
        assert re.search(
            rf"no complete run of [^:]*{name}" if language == "en" else f"本研究沒有[^，]*{name}", text
        )
    # Sections are never empty: a heading is followed by text.
    lines = [line for line in text.splitlines() if line.strip()]
    pairs = zip(lines, [*lines[1:], "#"], strict=True)
    assert not [one for one, other in pairs if one.startswith("#") and other.startswith("#")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_probes_no_conflict_was_measured(tmp_path, language):
    study = make(tmp_path, HELPS, folds=(0,), seeds=(0,))
    a = told(replace(study, probes=study.probes[:0]), language)
    said = a.section("answers").splitlines()[0]
    assert ("no conflict was measured" if language == "en" else "未測量衝突") in said
    assert "object at 0x" not in everything(a)


def words(language: str) -> dict:
    """What a language's template has: its words by key, its macros by name with their arguments."""
    return {
        name: {key: str(text) for key, text in value.items()} if isinstance(value, dict) else value.arguments
        for name, value in vars(environment(language).get_template(f"{language}.md.j2").module).items()
        if not name.startswith("_")
    }


def test_the_languages_have_the_same_words_and_macros():
    one, other = (words(language) for language in LANGUAGES)
    assert one.keys() == other.keys() >= {"claims", "difference", "missing"}
    assert {claim.key for claim in CLAIMS} == one["claims"].keys()
    for name, texts in one.items():
        if isinstance(texts, tuple):
            assert texts == other[name], name
            continue
        assert texts.keys() == other[name].keys(), name
        for key, text in texts.items():
            terms = re.findall("[A-Za-z_]{3,}", text)  # mAP, delta_m: the same everywhere
            same = all(term in other[name][key] for term in terms)
            assert same or re.search("[\u4e00-\u9fff]", other[name][key]), key
    with pytest.raises(ValueError, match=r"'zh-hant' is unknown \(did you mean 'zh-Hant'\?\)"):
        Analysis(None, "zh-hant")


NUMBER = re.compile(r"(?<![A-Za-z_.\d])[-+]?\d+(?:,\d{3})*(?:\.\d+)?%?")


def test_the_languages_say_the_same_numbers(helps, harms):
    for study in (helps, harms):
        texts = (everything(told(study, language)).replace("一萬", "10,000") for language in LANGUAGES)
        texts = (re.sub(r"\]\(#\S+\)", "]", text) for text in texts)  # headings differ
        one, other = (sorted(NUMBER.findall(text)) for text in texts)
        assert one == other and len(one) > 1000


def test_an_unknown_section_names_the_nearest(helps):
    with pytest.raises(ValueError, match=r"section: 'sumary' is unknown \(did you mean 'summary'\?\)"):
        told(helps).section("sumary")


def test_every_name_that_a_section_prints_is_text(tmp_path):
    name, safe = "**x** [y](z)", "\\*\\*x\\*\\* \\[y\\](z)"
    study = make(tmp_path, {"baseline": 0.4, "fusion": 0.5}, (0,))
    study = replace(
        study,
        **{
            table: getattr(study, table).replace({"solution": {"fusion": name}})
            for table in ("runs", "steps", "probes", "epochs")
        },
        files={(name if run[0] == "fusion" else run[0], *run[1:]): one for run, one in study.files.items()},
    )
    a = Analysis(study)
    text = everything(a) + "".join(
        a.section(one, name) for one in ("balance", "conflict", "drift", "missing")
    )
    assert name not in text.replace(f"`{name}`", "") and safe in text


def test_a_collapse_is_called_one(helps):
    a = told(helps)
    assert "**a collapse**, not a balance, in 6 of 6 runs" in a.section("balance", "gradnorm-reported")
    assert "No task collapsed" in a.section("balance", "gradnorm")
    assert len(facts.collapses(a, a.names)) == 1


def test_reported_figures_stand_beside_measured_ones_only_where_they_mean_the_same(helps):
    text = told(helps).section("solution", "gradnorm")
    (recall,) = re.findall(r"\*\*Recall\*\* \| (.*?) \|", text)
    (precision,) = re.findall(r"\*\*Precision\*\* \| (.*?) \|", text)
    assert (recall, precision) == ("0.207", "–")
    assert re.search(r"Weight of detection\*\* \| 1 → 0 \|", text)
    # (0.2500 - 0.2071) / 0.2071 = +20.7 %, the report's own.
    assert re.search(r"\*\*Recall\*\*.*\| \+20\.7% \|", told(helps).section("comparison", "gradnorm", "dual"))


def test_two_backbones_are_no_measured_success(helps):
    assert re.search(
        r"of [\d,]+ parameters of dual 0 are reached by both", told(helps).section("interference")
    )


def test_the_outlook_says_which_data_were_used(tmp_path):
    a = told(make(tmp_path, {"baseline": 0.4}, folds=(0,), seeds=(0,)))
    assert "phantom (synthetic)" in a.section("outlook")
    path = tmp_path / "baseline/fold=0/seed=0/config.json"
    path.write_text(path.read_text().replace('"phantom"', '"/somewhere/private/mine/data.yaml"'))
    a = told(controls.with_controls(load_study(tmp_path)))
    assert "mine/data.yaml (given by its path, not made by gradlib)" in a.section("outlook")
    assert "not made by gradlib), split by patient." in a.section("outlook")
    assert "private" not in everything(a)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_study_lacks_is_said_as_it_is(tmp_path, language):
    options = {"views": [], "split": "published"}
    study = make(tmp_path, {"detection-only": 0.4}, (0,), (0,), **{"detection-only": options})
    a = told(study, language)
    said = {
        "en": ("nothing to compare it with", "No difference between", "no image classes", "baseline"),
        "zh-Hant": ("沒有可比較的對象", "沒有方案之間的差異可問", "沒有影像類別", "baseline"),
    }[language]
    assert said[0] in a.section("leakage") and said[1] in a.section("power")
    assert said[2] in a.section("title", "mine") and said[2] in a.section("gains")
    assert "solutions" not in a.section("gains")


def test_the_environment_says_what_the_weights_started_from(tmp_path):
    a = told(make(tmp_path, {"baseline": 0.4}, folds=(0,), seeds=(0,)))
    assert "YOLOv5n, 64 px, starting from nothing" in a.section("environment")
    assert "stopped" not in a.section("environment")
    assert "| Why the study stopped | so \\| much |" in a.section("environment", "so | much")
    path = tmp_path / "baseline/fold=0/seed=0/config.json"
    given = {**json.loads(path.read_text()), "pretrained": "/somewhere/private/yolov5n.pt"}
    path.write_text(json.dumps(given))
    a = told(controls.with_controls(load_study(tmp_path)))
    assert "starting from yolov5n.pt" in a.section("environment")
    assert "private" not in a.section("environment")


def test_names_from_the_data_cannot_become_markup(tmp_path):
    study = make(tmp_path, {"baseline": 0.4}, (0,), (0,), baseline={"classes": ("<b>A|R</b>", "M*R_")})
    text = told(study).section("environment")
    assert "&lt;b&gt;A\\|R&lt;/b&gt;, M\\*R\\_" in text
    assert escape("a\nb $x$ [l](u) `c`") == "a b \\$x\\$ \\[l\\](u) \\`c\\`"
