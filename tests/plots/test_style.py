"""A solution has one colour everywhere, which readers with any colour vision tell from the others; and names
of the data may be Chinese."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from gradlib.config import SOLUTIONS
from gradlib.plots import data, frames, gradients, language, style
from gradlib.plots.language import enable_cjk_font, set_language
from gradlib.plots.style import PALETTE, colour

NAME = "主動脈瓣逆流"
COUNTS = pd.DataFrame([[3]], pd.Index([NAME], name="class"), pd.Index([NAME], name="view"))
PAIRS = pd.DataFrame({"solution": NAME, "class": [0], "view": 0, "cosine": [0.5]})
NAMED = {
    "table": lambda: data.count_map(COUNTS, NAME),
    "patients": lambda: data.patient_bars(pd.DataFrame({"patient": ["1"], "classes": NAME})),
    "pairs": lambda: gradients.pair_map(PAIRS, NAME, [NAME], [NAME]),
    "frame": lambda: frames.frame(
        np.zeros((9, 9, 3), np.uint8), [[0, 0.5, 0.5, 0.2, 0.4]], [NAME], NAME, plt.figure().add_subplot()
    ),
}


@pytest.fixture
def as_before():
    """No test's fonts are those of the next."""
    with plt.rc_context({"font.family": ["sans-serif"]}):
        yield
    plt.close("all")


@pytest.mark.parametrize("draw", NAMED.values(), ids=NAMED)
def test_chinese_names_are_drawn(draw, as_before):
    with pytest.warns(UserWarning, match="Glyph"):  # the control: the name does need a font of its own
        style.png(draw().figure)
    if enable_cjk_font(NAME):
        pytest.skip("no font with Chinese letters")
    style.png(draw().figure)  # a missing letter is a warning, and warnings are errors here


def test_ones_own_font_stays_the_first(as_before):
    plt.rcParams["font.family"] = ["monospace"]
    font = language.cjk_font()
    assert enable_cjk_font("AR") == "" and bool(enable_cjk_font(NAME, "AR")) == (font is None)
    assert plt.rcParams["font.family"] == ["monospace", "sans-serif", *([font] if font else [])]


def test_without_a_font_one_line_says_what_to_install_and_matplotlib_says_nothing(as_before, monkeypatch):
    monkeypatch.setattr(language, "FAMILIES", ("A Font That Is Nowhere",))
    assert enable_cjk_font("AR", "Größe") == set_language("en", "AR") == ""
    assert "fonts-noto-cjk" in set_language("en", "AR", NAME)
    figure = Figure()
    figure.text(0, 0, NAME)
    style.png(figure)


def test_colours_are_fixed():
    assert len({colour(name) for name in SOLUTIONS}) == len(SOLUTIONS)
    assert colour("mine") == colour("mine")


def test_solutions_of_ones_own_share_no_colour_while_there_are_others(monkeypatch):
    monkeypatch.setattr(style, "_places", {name: place for place, name in enumerate(SOLUTIONS)})
    names = [*SOLUTIONS, *(f"mine-{number}" for number in range(len(PALETTE) - len(SOLUTIONS)))]
    assert len({colour(name) for name in names}) == len(PALETTE)


# Machado, Oliveira and Fernandes (2009), severity 1.0: what linear RGB becomes without one kind of cone.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Linear sRGB to XYZ (IEC 61966-2-1).
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colours: np.ndarray) -> np.ndarray:
    """sRGB colours [N, 3] in 0-1 without their gamma."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """Linear RGB [N, 3] in CIELAB, with the white of sRGB."""
    part = light @ XYZ.T / XYZ.sum(axis=1)
    x, y, z = np.where(part > (6 / 29) ** 3, np.cbrt(part), part / 3 * (29 / 6) ** 2 + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference of CIELAB colours [..., 3], as Sharma, Wu and Dalal (2005) write it, without weights."""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(point, float), -1, 0) for point in (one, other))
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = np.arctan2(b1, stretch * a1), np.arctan2(b2, stretch * a2)
    turn = (h2 - h1 + np.pi) % (2 * np.pi) - np.pi
    middle, c, h = (l1 + l2) / 2, (c1 + c2) / 2, np.degrees(h1 + turn / 2) % 360
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    t = 1 + sum(size * np.cos(np.radians(times * h + shift)) for size, times, shift in waves)
    lightness = (l2 - l1) / (1 + 0.015 * (middle - 50) ** 2 / np.sqrt(20 + (middle - 50) ** 2))
    chroma = (c2 - c1) / (1 + 0.045 * c)
    hue = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2) / (1 + 0.015 * c * t)
    rotation = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(60) * np.exp(-(((h - 275) / 25) ** 2)))
    return np.sqrt(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue)


def least_difference(colours: list[tuple], vision: str) -> float:
    """Of any two of the sRGB `colours`, to a reader with this vision."""
    seen = lab(np.clip(linear(np.array(colours)) @ VISIONS[vision].T, 0, 1))
    return ciede2000(seen[:, None], seen)[np.triu_indices(len(seen), 1)].min()


def noticed(degrees: float) -> float:
    """The difference in lightness that half of all people notice between marks of that size, on screens of
    their own (Stone, Szafir and Setlur 2014, from 6 to 1/3 degrees). CIEDE2000 has the same unit for it."""
    return (10.16 + 1.50 / degrees) / 2


def test_differences_are_those_of_the_published_test_data():
    # Pairs 1, 17 and 25 of Sharma, Wu and Dalal (2005).
    assert ciede2000([50, 2.6772, -79.7751], [50, 0, -82.7485]) == pytest.approx(2.0425, abs=1e-4)
    assert ciede2000([50, 2.5, 0], [73, 25, -18]) == pytest.approx(27.1492, abs=1e-4)
    assert ciede2000([60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387]) == pytest.approx(
        1.2644, abs=1e-4
    )


@pytest.mark.parametrize("vision", VISIONS)
def test_solutions_are_told_apart_with_any_colour_vision(vision):
    study = yaml.safe_load((Path(__file__).parents[2] / "notebooks/demo.yaml").read_text())
    names = [one if isinstance(one, str) else one["name"] for one in study["solutions"]]
    names += ["gradnorm-reported", "leaking"]  # of full.yaml
    assert len(names) == 8
    for group in (names, list(SOLUTIONS)[:10]):
        # Lines: a tenth of a degree is 1 mm at 60 cm. Between large fields, side by side, 1 is noticed.
        least = least_difference([colour(name) for name in group], vision)
        assert least > noticed(0.1) == pytest.approx(12.58)
    # Bars and points: a third of a degree, 3.5 mm.
    assert least_difference([to_rgb(shade) for shade in PALETTE], vision) > noticed(1 / 3)


def test_lines_stand_out_from_white():
    luminance = linear(np.array([to_rgb(shade) for shade in PALETTE])) @ XYZ[1]
    assert (1.05 / (luminance + 0.05) >= 3).all()  # what WCAG 2.1 asks of graphics (1.4.11)


def test_a_solution_of_ones_own_looks_like_none_of_the_first_ten():
    first = {colour(name) for name in list(SOLUTIONS)[:10]}
    assert not first & {colour(f"mine-{number}") for number in range(100)}
