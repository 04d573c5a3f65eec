"""The sentences of the analysis in several languages, from `texts.yaml`: a key, and values to fill in."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import yaml

from gradlib.config import closest
from gradlib.plots.language import LANGUAGES, terms

__all__ = ["Language", "catalogue"]


class Language:
    """Says a text of the catalogue in one language: `say("better", name="dual")`.

    Raises ValueError for a language, KeyError for a text that the catalogue does not have.
    """

    def __init__(self, code: str = "en"):
        if code not in LANGUAGES:
            raise ValueError(f"language: {code!r} is unknown{closest(code, LANGUAGES)}")
        self.code = code

    def __call__(self, key: str, **values: object) -> str:
        return catalogue()[key][self.code].format(**values)

    def listed(self, items: Iterable[str]) -> str:
        """The items, separated as the language does; its word for "none" where there is none."""
        return self("comma").join(items) or self("none")


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Every text by key and language."""
    return terms() | yaml.safe_load(files("gradlib").joinpath("texts.yaml").read_text(encoding="utf-8"))
