"""The study of 50 runs that is made up: a study like another."""

from gradlib.evidence import tables
from gradlib.evidence.controls import with_controls
from gradlib.runs.read import load_study


def test_it_reads_as_a_study(fifty):
    study = load_study(fifty)
    assert len(study.runs) == 50 and not study.incomplete
    assert study.runs.groupby("solution").size().to_dict() == dict.fromkeys(
        ("baseline", "detection-only", "dual", "fusion", "gradnorm"), 10
    )
    assert len(study.steps) == 50 * 700 and len(study.epochs) == 50 * 12
    # Three solutions share layers: two of them six stages and one three, each with two kinds of parameters.
    assert len(study.probes) == 10 * 35 * 2 * (6 + 6 + 3)
    assert len(study.batches) == 30 * 35 * 2 * 16  # frames of two batches
    assert sum(len(study.predictions("dual", fold, 1)) for fold in range(5)) == 1000  # each frame once


def test_its_tables_can_be_compared(fifty):
    study = with_controls(load_study(fifty))
    core = tables.core_metrics(study)
    assert (core["runs"] == 10).all()
    assert core["map50"].dropna().between(0.3, 0.9).all() and core["map50"].notna().sum() == 5
    assert not tables.start_to_end(study).empty and not tables.efficiency(study).empty
