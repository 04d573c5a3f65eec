"""The language of figures: short terms from `labels.yaml`, and a font that has the characters of names."""

import re
import warnings
from functools import cache
from importlib.resources import files

import yaml

from gradlib.config import closest
from gradlib.plots import fonts

__all__ = ["LANGUAGES", "enable_cjk_font", "set_language", "terms", "translate"]

LANGUAGES = ("en", "zh-Hant")

_language = LANGUAGES[0]  # of figures; `set_language` changes it


@cache
def terms() -> dict[str, dict[str, str]]:
    """Every term by key and language."""
    return yaml.safe_load(files("gradlib.plots").joinpath("labels.yaml").read_text(encoding="utf-8"))


def translate(key: str, language: str = "", **values: object) -> str:
    """A term in `language`, by default that of figures; its {names} are filled with `values`.

    KeyError for an unknown key.
    """
    return terms()[key][language or _language].format(**values)


def set_language(language: str = "en", *names: str) -> str:
    """Label the figures of `03_analysis` in `language` from here on; names as in `enable_cjk_font`.

    Returns the line that says which font to install if none has the characters of the language (labels stay
    English then) or of a name, else "". ValueError for an unknown language.
    """
    global _language
    if language not in LANGUAGES:
        raise ValueError(f"language: {language!r} is unknown{closest(language, LANGUAGES)}")
    missing = fonts.missing() if language.startswith("zh") else ""
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
    plt.rcParams["font.family"] = list(dict.fromkeys([*plt.rcParams["font.family"], *fonts.families()]))
    # A missing character shows as a box; matplotlib would warn of each.
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
    return fonts.missing() if re.search("[\u3400-\u9fff\uf900-\ufaff]", "".join(names)) else ""
