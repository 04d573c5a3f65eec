"""Chinese letters: a font that really has them, found even if it was installed a moment ago."""

import copy
import io
import re
from importlib.resources import files

import matplotlib.pyplot as plt
import pytest
from matplotlib import font_manager

from gradlib.plots import language

# matplotlib's own: on every machine, without Chinese letters.
DEJAVU = str(font_manager.findfont("DejaVu Sans"))


@pytest.fixture
def dejavu_alone(monkeypatch):
    """A machine on which no font is known to have Chinese letters but, perhaps, DejaVu Sans."""
    monkeypatch.setattr(language, "FAMILIES", ("A Font That Is Nowhere", "DejaVu Sans"))


def drawn(text: str, families: list[str]) -> None:
    with plt.rc_context({"font.family": families}):
        figure = plt.figure()
        figure.text(0, 0.5, text)
        figure.savefig(io.BytesIO())
    plt.close(figure)


def test_every_letter_of_the_texts_is_drawn():
    font = language.cjk_font()
    if font is None:
        pytest.skip("no font with Chinese letters")
    sources = [path for end in ("yaml", "j2") for path in files("gradlib").rglob(f"*.{end}")]
    letters = set("".join(path.read_text(encoding="utf-8") for path in sources)) - set("\n$")
    assert len([letter for letter in letters if letter > "\u3400"]) > 300
    with pytest.warns(UserWarning, match="Glyph"):  # the control: the letters do need that font
        drawn(language.CHARACTERS, ["sans-serif"])
    drawn("".join(sorted(letters)), ["sans-serif", font])  # a missing one is a warning, an error here


def test_without_a_font_figures_are_as_in_english_and_one_line_says_what_to_install(dejavu_alone):
    assert language.cjk_font() is None  # DejaVu Sans is there, and has not the letters
    with plt.rc_context({"font.family": ["sans-serif"]}):
        line = language.set_language("zh-Hant")
        assert plt.rcParams["font.family"] == ["sans-serif"]
    assert language.translate("label.step") == "step"
    assert "figures show boxes" in line and "fonts-noto-cjk" in line and "font-ttf-noto-cjk" in line


def test_every_term_is_in_every_language():
    for key, texts in language.terms().items():
        assert set(texts) == set(language.LANGUAGES), key
        fields = [sorted(re.findall(r"{\w+}", texts[code])) for code in language.LANGUAGES]
        assert fields[0] == fields[1], key


def test_a_font_installed_a_moment_ago_is_found(dejavu_alone, monkeypatch):
    stale = copy.copy(font_manager.fontManager)
    stale.ttflist = [entry for entry in stale.ttflist if entry.name != "DejaVu Sans"]
    monkeypatch.setattr(font_manager, "fontManager", stale)
    monkeypatch.setattr(language, "CHARACTERS", "ab")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *folders: ["nowhere.ttf"])
    assert language.cjk_font() is None
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *folders: ["nowhere.ttf", DEJAVU])
    assert language.cjk_font() == "DejaVu Sans"
