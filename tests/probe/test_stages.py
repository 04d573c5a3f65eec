import math

import pytest
import torch

from gradlib.probe.pairs import cosine
from gradlib.probe.stages import magnitude_similarity


def test_cosine_and_similarity_by_hand():
    # (1, 2 | 2) . (2, 0 | -1) = 0; |(1, 2, 2)| = 3.
    a, b = (
        [torch.tensor([1.0, 2]), torch.tensor([2.0])],
        [torch.tensor([2.0, 0]), torch.tensor([-1.0])],
    )
    assert cosine(a, b) == 0
    assert cosine(a, a) == pytest.approx(1) and cosine(a, [-t for t in a]) == pytest.approx(-1)
    assert math.isnan(cosine(a, [0 * t for t in a]))
    assert magnitude_similarity(3, 4) == 24 / 25
    assert magnitude_similarity(2, 2) == 1 and magnitude_similarity(2, 0) == 0
    assert math.isnan(magnitude_similarity(0, 0))
