"""Every figure has a title and labelled axes, those of the analysis in its language, and a solution has one
colour everywhere."""

import io
import re
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from gradlib.config import BRANCHES, SOLUTIONS
from gradlib.evidence.intervals import Estimate
from gradlib.plots import data, gradients, results, style, training
from gradlib.plots.language import set_language, translate
from gradlib.plots.style import colour


@pytest.fixture(autouse=True)
def close_figures():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def table(solutions=("baseline", "gradnorm"), seeds=(0, 1), stages=("",)) -> pd.DataFrame:
    """Every column that a figure of training may want, ten rows a run (and stage)."""
    rows = [
        {
            "solution": name, "fold": 0, "seed": seed, "stage": stage, "kind": kind, "step": i, "epoch": i,
            "train_loss": 2 - i / 9, "train_loss_detection": 1.0,
            "valid_loss": 2.0, "valid_loss_detection": 1 + seed,
            "weight_detection": 1.0, "weight_classification": 1.0,
            "share_detection": 0.5, "cosine": i / 9 - 0.5, "conflict": int(i < 5), "fraction": 0.0,
            "signal_detection": 1.0, "signal_classification": 1.0, "cross_detection_classification": i / 20,
            "square_detection": 9.0, "square_classification": 9.0, "same_detection_classification": 1.0,
            "lr_shared": 0.1, "lr_detection": 0.1, "lr_classification": 0.1 if name == "baseline" else 0.2,
        }
        for name in solutions
        for seed in seeds
        for stage in stages
        for kind in ("conv", "norm")
        for i in range(10)
    ]  # fmt: skip
    return pd.DataFrame(rows)


CORE = pd.DataFrame(
    {"map50": [0.5, 0.4, np.nan], "map50 sd": [0.1, np.nan, np.nan], "balanced_accuracy": [0.7, np.nan, 0.6]},
    index=["baseline", "detection-only", "classification-only"],
)
VIEWS = pd.DataFrame(
    [[3, 1], [0, 2]], pd.Index(["A4C", "PSAX"], name="true"), pd.Index(["A4C", "PSAX"], name="named")
)
CURVES = pd.DataFrame({"solution": "dual", "recall": [0.0, 1.0], "precision": [1.0, 0.0]})
PAIRS = pd.DataFrame({"solution": "dual", "class": [0, 0, 1], "view": 0, "cosine": [0.5, -0.1, np.nan]})
TASKS = ["box", "objectness", "class", "classification"]
PARTS = {f"{kind}_{one}_{other}": 0.1 for kind in ("cross", "same") for one, other in combinations(TASKS, 2)}
PARTS |= {f"signal_{task}": 1.0 for task in TASKS} | {f"square_{task}": 9.0 for task in TASKS}
PARTS = pd.DataFrame(
    [{"solution": "dual", "fold": 0, "seed": 0, "step": i, "fraction": 0.0, **PARTS} for i in range(9)]
)
HARM = pd.DataFrame([{"solution": "dual", "rho": -0.1, "margin": 0.2, "delta_m": -3.0}] * 2)
TRADE_OFF = pd.DataFrame(
    {
        "map50": [0.4, 0.5, 0.3],
        "map50 margin": [0.1, np.nan, 0.1],
        "balanced_accuracy": [0.7, 0.6, np.nan],
        "balanced_accuracy margin": [0.1, np.nan, np.nan],
        "front": [True, True, False],
    },
    index=["baseline", "dual", "detection-only"],
)
ESTIMATES = {
    "baseline": Estimate(1.0, 0.1, 9, 0.1, 5, 5, p=0.01),
    "dual": Estimate(-1.0, insufficient_reason="runs"),
    "fusion": Estimate(np.nan, insufficient_reason="values"),
}
LEAKING = pd.DataFrame(
    {
        "metric": ["map50", "balanced_accuracy"],
        "published": [0.8, 0.9],
        "published margin": 0.1,
        "unseen": [0.4, 0.9],
        "unseen margin": 0.1,
    }
)
FIGURES = {
    "losses": lambda: training.losses(table()),
    "losses of a task": lambda: training.losses(table(), "detection"),
    "weights": lambda: training.weights(table()),
    "learning rates": lambda: training.learning_rates(table()),
    "heat map": lambda: gradients.cosine_heatmap(table(stages=("neck", "p1")), "baseline"),
    "heat map of nothing": lambda: gradients.cosine_heatmap(table(stages=("p1",)), "dual"),
    "interference": lambda: gradients.interference(table(stages=("neck", "p1"))),
    "interference of nothing": lambda: gradients.interference(table()[:0]),
    "parts": lambda: gradients.parts_map(PARTS, "dual"),
    "parts of nothing": lambda: gradients.parts_map(PARTS, "nobody"),
    "harm": lambda: gradients.harm(HARM),
    "harm of nothing": lambda: gradients.harm(HARM[:0]),
    "pairs": lambda: gradients.pair_map(PAIRS, "dual", ["AR", "MR"], ["A4C"]),
    "pairs of nothing": lambda: gradients.pair_map(PAIRS, "nobody", ["AR", "MR"], ["A4C"]),
    "share": lambda: gradients.gradient_share(table()),
    "share of nothing": lambda: gradients.gradient_share(table().assign(share_detection=np.nan)),
    "precision and recall": lambda: results.precision_recall(CURVES),
    "views": lambda: data.count_map(VIEWS, "views"),
    "bars": lambda: results.metric_bars(CORE, "map50", "mAP@0.5"),
    "trade-off": lambda: results.trade_off(TRADE_OFF),
    "forest": lambda: results.forest(ESTIMATES, translate("label.gains")),
    "leakage of scores": lambda: results.leaking(LEAKING, "baseline"),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_figures_are_titled_and_labelled(draw):
    ax = draw()
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    ax.figure.canvas.draw()


#: What the figures of 03_analysis say in English, but for names and numbers.
ENGLISH = {
    "heat map": {
        "Gradient cosine by stage: baseline, conv",
        *("step", "shared stage", "cosine (below 0: conflict)"),
    },
    "heat map of nothing": {
        "Gradient cosine by stage: dual, conv",
        *("step", "shared stage", "nothing to show"),
    },
    "share": {"Weighted gradient share of detection", "step", "share (the rest: classification)"},
    "trade-off": {"Both tasks at once", "balanced accuracy of the view", "mAP@0.5", "Pareto front"},
    "forest": {"delta_m (%), against the specialists", "solution"},
    "leakage of scores": {
        *("test metric", "score", "mAP@0.5", "Balanced accuracy"),
        *("published split (leaks)", "unseen patients"),
    },
}


def said(name: str) -> set[str]:
    """The texts of a figure, drawn: a missing letter is a warning, and so an error here."""
    figure = FIGURES[name]().figure
    figure.savefig(io.BytesIO())
    texts = {text.get_text() for text in figure.findobj(Text) if text.get_visible()}
    return {text for text in texts if re.search(r"[^\W\d]", text)} - {*SOLUTIONS, *BRANCHES}


@pytest.fixture
def language():
    """`set_language`; all is as before after the test."""
    with plt.rc_context():
        yield set_language
        set_language()


@pytest.mark.parametrize("name", ENGLISH)
def test_the_figures_of_the_analysis_speak_its_language(name, language):
    assert language("en") == "" and said(name) == ENGLISH[name]
    if language("zh-Hant"):
        pytest.skip("no font with Chinese letters")
    chinese = said(name)
    assert len(chinese) == len(ENGLISH[name])
    words = set(re.findall("[A-Za-z]{3,}", re.sub("|".join(SOLUTIONS), "", " ".join(chinese))))
    assert words <= {"mAP", "delta", "Pareto"}
    assert all(re.search("[\u4e00-\u9fff]", text) for text in chinese - {"mAP@0.5"})


@pytest.mark.parametrize("name", ENGLISH)
def test_without_a_font_labels_stay_english_and_a_line_says_why(name, language, monkeypatch):
    monkeypatch.setattr("gradlib.plots.language.FAMILIES", ("A Font That Is Nowhere",))
    assert "English labels: install" in language("zh-Hant")
    assert said(name) == ENGLISH[name]


def test_an_unknown_language_changes_nothing(language):
    with pytest.raises(ValueError, match="language: 'zh' is unknown"):
        language("zh")
    assert translate("label.step") == "step"


def test_figures_draw_into_the_axes_they_are_given():
    _, ax = plt.subplots()
    assert training.losses(table(), ax=ax) is ax


def test_a_solution_has_its_colour_in_every_figure():
    for solutions in (("gradnorm",), ("baseline", "gradnorm")):
        ax = training.weights(table(solutions))
        (line,) = (line for line in ax.get_lines() if line.get_label() == "gradnorm")
        assert line.get_color() == colour("gradnorm")


def test_a_long_legend_leaves_the_curves_free():
    for names, beside in (("abcd", False), ("abcde", True)):
        ax = training.weights(table(tuple(names)))
        ax.figure.canvas.draw()
        assert (ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1) == beside


def test_one_legend_names_the_solutions_of_all_axes():
    figure, axes = plt.subplots(1, 3)
    shown = {"train_loss": ("dual", "a"), "weight_detection": ("baseline", "dual"), "nothing": ("dual",)}
    for ax, (column, names) in zip(axes, shown.items(), strict=True):
        training.curves(training.pivot_runs(table(names), "step", column), column, ax=ax)
    style.one_legend(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["baseline", "dual", "a"]
    assert [len(ax.texts) for ax in axes] == [0, 0, 1] and not any(ax.get_legend() for ax in axes)


def test_runs_are_averaged():
    # Two seeds of 1 and 2: the dashed line lies at 1.5, in a band.
    ax = training.losses(table(("baseline",)), "detection")
    assert np.allclose(ax.get_lines()[1].get_ydata(), 1.5)
    assert len(ax.collections) == 1


def test_a_loss_far_above_the_others_does_not_flatten_them():
    assert training.losses(table(), "detection").get_yscale() == "linear"
    high = table()
    high.loc[(high["epoch"] == 0) & high["valid_loss_detection"].notna(), "valid_loss_detection"] *= 50
    assert training.losses(high, "detection").get_yscale() == "log"


def test_one_epoch_is_a_point():
    ax = training.losses(table().query("epoch == 0"))
    assert {line.get_marker() for line in ax.get_lines()} == {"o"}
    assert {tuple(line.get_xdata()) for line in ax.get_lines()} == {(1,)}  # the first epoch, not the 0th
    assert {line.get_marker() for line in training.losses(table()).get_lines()} == {"None"}


def test_equal_schedules_share_a_line():
    # One of 0.1 (both solutions), one of 0.2 (gradnorm's classification).
    labels = [line.get_label() for line in training.learning_rates(table()).get_lines()]
    assert labels == ["all solutions (shared, detection, classification)", "gradnorm (classification)"]


def test_the_map_has_its_stages_in_order():
    ax = gradients.cosine_heatmap(table(stages=("neck", "p3", "p1")), "baseline")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["p1", "p3", "neck"]


def test_the_pair_map_says_how_often_each_pair_conflicts():
    ax = gradients.pair_map(PAIRS, "dual", ["AR", "MR"], ["A4C"])
    assert [text.get_text() for text in ax.texts] == ["+0.20\n50% below 0"]  # nothing is known of MR


def test_a_verdict_is_a_full_point_and_what_has_no_value_no_row():
    ax = results.forest(ESTIMATES, "delta_m (%)")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dual", "baseline"]
    faces = [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]
    assert faces == ["white", colour("baseline")]
    plt.close(ax.figure)
