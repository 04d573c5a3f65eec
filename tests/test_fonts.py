"""Chinese letters: a font that really has them, found even if it was installed a moment ago."""

import copy
import io

import matplotlib.pyplot as plt
import pytest
from matplotlib import font_manager

from gradlib.plots import fonts
from gradlib.report.language import catalogue

# matplotlib's own: on every machine, without Chinese letters.
DEJAVU = str(font_manager.findfont("DejaVu Sans"))


@pytest.fixture
def dejavu_alone(monkeypatch):
    """A machine on which no font is known to have Chinese letters but, perhaps, DejaVu Sans."""
    monkeypatch.setattr(fonts, "FAMILIES", ("A Font That Is Nowhere", "DejaVu Sans"))


def drawn(text: str, families: list[str]) -> None:
    with plt.rc_context({"font.family": families}):
        figure = plt.figure()
        figure.text(0, 0.5, text)
        figure.savefig(io.BytesIO())
    plt.close(figure)


def test_every_letter_of_the_texts_is_drawn():
    families = fonts.families()
    if len(families) < 2:
        pytest.skip("no font with Chinese letters")
    letters = sorted(set("".join(text["zh-Hant"] for text in catalogue().values())) - set("\n$"))
    assert len(letters) > 300
    with pytest.warns(UserWarning, match="Glyph"):  # the control: the letters do need that font
        drawn(fonts.CHARACTERS, ["sans-serif"])
    drawn("".join(letters), families)  # a missing one is a warning, and warnings are errors here


def test_without_a_font_figures_are_as_in_english_and_one_line_says_what_to_install(dejavu_alone):
    assert fonts.cjk_font() is None  # DejaVu Sans is there, and has not the letters
    assert fonts.families() == ["sans-serif"]
    line = fonts.missing()
    assert "figures show boxes" in line and "fonts-noto-cjk" in line and "font-ttf-noto-cjk" in line


def test_a_font_installed_a_moment_ago_is_found(dejavu_alone, monkeypatch):
    stale = copy.copy(font_manager.fontManager)
    stale.ttflist = [entry for entry in stale.ttflist if entry.name != "DejaVu Sans"]
    monkeypatch.setattr(font_manager, "fontManager", stale)
    monkeypatch.setattr(fonts, "CHARACTERS", "ab")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *folders: ["nowhere.ttf"])
    assert fonts.cjk_font() is None
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *folders: ["nowhere.ttf", DEJAVU])
    assert fonts.cjk_font() == "DejaVu Sans" and fonts.missing() == ""
