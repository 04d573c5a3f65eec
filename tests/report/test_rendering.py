"""Tables of one run as sentences."""

import numpy as np
import pandas as pd

from gradlib.report.rendering import alarms


def test_an_alarm_names_the_evidence_of_a_collapse():
    steps = pd.DataFrame({"step": range(100), "share_detection": [0.5] * 40 + [0.999] * 60})
    steps["weight_detection"], steps["loss_detection"] = 1.0, np.linspace(4, 1, 100)
    steps["weight_classification"] = np.r_[np.linspace(1, 0.01, 40), [0.01] * 60]
    steps["loss_classification"] = np.r_[np.linspace(2, 1.1, 40), [1.1] * 60]
    (line,) = alarms(steps)
    assert line.startswith("collapse: classification has less than 1% of the weighted gradient since step 4")
    assert "weight 1 to 0.01" in line and "1.100 to 1.100" in line
    assert alarms(steps.assign(share_detection=0.5)) == []
