"""Which font of this machine has Chinese characters, for figures."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["cjk_font", "families", "missing"]

#: "Gradients in conflict". A font of simplified characters alone may lack the third.
CHARACTERS = "梯度衝突"
#: Best first. matplotlib before 3.11 knows a collection (.ttc) by its first face alone, so Noto Sans CJK
#: stands here with all of its faces: in Debian's files the Japanese one is first.
FAMILIES = (
    *("Noto Sans CJK TC", "Noto Sans TC", "Source Han Sans TC", "PingFang TC", "Heiti TC"),
    *("Microsoft JhengHei", "Noto Sans CJK HK", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR"),
    *("Source Han Sans", "Source Han Sans SC", "PingFang HK", "STHeiti", "Microsoft YaHei", "SimHei"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS"),
    *("Noto Serif CJK TC", "Noto Serif CJK JP", "AR PL UMing TW", "AR PL UMing CN", "PMingLiU", "MingLiU"),
)
INSTALL = (
    "install one (Debian: fonts-noto-cjk, conda-forge: font-ttf-noto-cjk), or put its file in "
    "~/.local/share/fonts, and start again"
)


def families() -> list[str]:
    """What `rcParams["font.family"]` takes: where the first lacks a character, the next is asked.

    Without a font that has Chinese characters it is the default alone; see `missing`.
    """
    own = cjk_font()
    return ["sans-serif", own] if own else ["sans-serif"]


def cjk_font() -> str | None:
    """The first of FAMILIES that matplotlib finds here and that has CHARACTERS, if there is one."""
    found = next(filter(_has_characters, FAMILIES), None)
    if found is None:
        _add_new_fonts()
        found = next(filter(_has_characters, FAMILIES), None)
    return found


def missing() -> str:
    """The line that says which font to install for Chinese characters; empty if there is one."""
    if cjk_font():
        return ""
    return (
        f"no font here has Chinese characters, and figures show boxes for them, or English labels: {INSTALL}"
    )


def lacks(language: str, printed: bool) -> str:
    if not language.startswith("zh") or _printable():
        return ""
    return f"no font here has Chinese letters, and the PDF shows boxes for them: {INSTALL}"


def _has_characters(family: str) -> bool:
    from matplotlib import font_manager

    wanted = font_manager.FontProperties(family=family)
    try:
        path = font_manager.fontManager.findfont(wanted, fallback_to_default=False)
    except ValueError:
        return False
    return set(map(ord, CHARACTERS)) <= font_manager.get_font(path).get_charmap().keys()


def _add_new_fonts() -> None:
    """Add the fonts that were installed since matplotlib wrote its list of fonts."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    conda = font_manager.findSystemFonts(str(Path(sys.prefix) / "fonts"))  # where its font packages go
    for path in sorted({*font_manager.findSystemFonts(), *conda} - known):
        with contextlib.suppress(Exception):  # a file that FreeType cannot read: no font to draw with
            font_manager.fontManager.addfont(path)


def _printable() -> bool:
    """Whether a browser finds CHARACTERS, which asks fontconfig; elsewhere the system has them."""
    if shutil.which("fc-list") is None:
        return True
    codes = " ".join(f"{ord(letter):x}" for letter in CHARACTERS)
    found = subprocess.run(["fc-list", f":charset={codes}"], capture_output=True, text=True)
    return bool(found.stdout.strip())
