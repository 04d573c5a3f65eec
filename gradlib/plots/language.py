"""The language of figures: short terms from `labels.yaml`, and a font that has Chinese characters."""

import contextlib
import re
import sys
import warnings
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from gradlib.checks import closest

LANGUAGES = ("en", "zh-Hant")
_language = LANGUAGES[0]  # of figures; `set_language` changes it

# "Gradients in conflict". A font of simplified characters alone may lack the third.
CHARACTERS = "梯度衝突"
# Best first. matplotlib before 3.11 knows a collection (.ttc) by its first face alone, so Noto Sans CJK
# stands here with all of its faces: in Debian's files the Japanese one is first.
FAMILIES = (
    *("Noto Sans CJK TC", "Noto Sans TC", "Source Han Sans TC", "PingFang TC", "Heiti TC"),
    *("Microsoft JhengHei", "Noto Sans CJK HK", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR"),
    *("Source Han Sans", "Source Han Sans SC", "PingFang HK", "STHeiti", "Microsoft YaHei", "SimHei"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS"),
    *("Noto Serif CJK TC", "Noto Serif CJK JP", "AR PL UMing TW", "AR PL UMing CN", "PMingLiU", "MingLiU"),
)
NO_FONT = (
    "no font here has Chinese characters, and figures show boxes for them, or English labels: install one "
    "(Debian: fonts-noto-cjk, conda-forge: font-ttf-noto-cjk), or put its file in ~/.local/share/fonts, and "
    "start again"
)


@cache
def terms() -> dict[str, dict[str, str]]:
    """Every term by key and language."""
    return yaml.safe_load(files("gradlib.plots").joinpath("labels.yaml").read_text(encoding="utf-8"))


def translate(key: str, language: str = "", **values: object) -> str:
    """A term in `language`, by default that of figures; its {names} are filled with `values`.

    Raises KeyError for an unknown key.
    """
    return terms()[key][language or _language].format(**values)


def set_language(language: str = "en", *names: str) -> str:
    """Label the figures of `03_analysis` in `language` from here on; names as in `enable_cjk_font`.

    Returns the line that says which font to install if none has the characters of the language (labels stay
    English then) or of a name, else "". Raises ValueError for an unknown language.
    """
    global _language
    if language not in LANGUAGES:
        raise ValueError(f"language: {language!r} is unknown{closest(language, LANGUAGES)}")
    missing = NO_FONT if language != LANGUAGES[0] and not cjk_font() else ""
    _language = LANGUAGES[0] if missing else language
    return enable_cjk_font(*names) or missing


def enable_cjk_font(*names: str) -> str:
    """Let figures show `names` of the data, solutions or views, which may be Chinese in any language.

    matplotlib gets a font with Chinese characters after its own, so nothing else changes. Returns the line
    that says which font to install if there is none and a name needs it, else "". From here on names are
    plain text: dollar signs begin no formula, in figures and in tables.
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    plt.rcParams["text.parse_math"] = False
    for kind in ("display.html.use_mathjax", "styler.html.mathjax"):
        pd.set_option(kind, False)
    font = cjk_font()
    families = [*plt.rcParams["font.family"], "sans-serif", *([font] if font else [])]
    plt.rcParams["font.family"] = list(dict.fromkeys(families))
    # A missing character shows as a box; matplotlib would warn of each.
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
    chinese = re.search("[\u3400-\u9fff\uf900-\ufaff]", "".join(names))
    return NO_FONT if chinese and not font else ""


def cjk_font() -> str | None:
    """The first of FAMILIES that matplotlib finds here and that has CHARACTERS, if there is one."""
    from matplotlib import font_manager

    manager = font_manager.fontManager

    def search() -> str | None:
        for family in FAMILIES:
            with contextlib.suppress(ValueError):  # not on this machine
                path = manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
                if set(map(ord, CHARACTERS)) <= font_manager.get_font(path).get_charmap().keys():
                    return family
        return None

    if search() is None:  # add the fonts that were installed since matplotlib wrote its list
        conda = font_manager.findSystemFonts(str(Path(sys.prefix) / "fonts"))
        for path in {*font_manager.findSystemFonts(), *conda} - {entry.fname for entry in manager.ttflist}:
            with contextlib.suppress(Exception):  # a file that FreeType cannot read
                manager.addfont(path)
    return search()
