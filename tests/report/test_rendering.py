"""Tables of one run as sentences."""

import numpy as np
import pandas as pd

from gradlib.evidence.intervals import Estimate
from gradlib.report.rendering import alarms, form, interval, number


def test_an_alarm_names_the_evidence_of_a_collapse():
    steps = pd.DataFrame({"step": range(100), "share_detection": [0.5] * 40 + [0.999] * 60})
    steps["weight_detection"], steps["loss_detection"] = 1.0, np.linspace(4, 1, 100)
    steps["weight_classification"] = np.r_[np.linspace(1, 0.01, 40), [0.01] * 60]
    steps["loss_classification"] = np.r_[np.linspace(2, 1.1, 40), [1.1] * 60]
    (line,) = alarms(steps)
    assert line.startswith("collapse: classification has less than 1% of the weighted gradient since step 4")
    assert "weight 1 to 0.01" in line and "1.100 to 1.100" in line
    assert alarms(steps.assign(share_detection=0.5)) == []


def test_a_number_is_never_a_negative_zero():
    assert (form(-1e-9, "+.1f", "%"), form(-1e-9, ",.2f"), form(3, ",.0f")) == ("+0.0%", "0.00", "3")
    assert number(-1e-9, "map50", True) == "+0.000"


def test_the_interval_of_a_difference_of_shares_lies_within_one():
    wide = Estimate(0.2, 1.0, 1)
    assert interval(wide, "balanced_accuracy", True) == "+0.200 [-1.000, +1.000]"
    assert interval(wide, "balanced_accuracy") == "0.200 [0.000, 1.000]"
