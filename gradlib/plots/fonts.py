"""Which font of this machine has Chinese letters: for figures, which matplotlib draws, and for pages, which a
browser prints."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["chinese", "families", "lacks"]

#: "Gradients in conflict". A font of simplified letters alone may lack the third.
LETTERS = "梯度衝突"
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


def families(language: str = "en") -> list[str]:
    """What `rcParams["font.family"]` takes for figures in `language`: matplotlib looks for each letter in the
    first, then in the next. Where no font has Chinese letters it is as for English; see `lacks`."""
    own = chinese() if language.startswith("zh") else None
    return ["sans-serif", own] if own else ["sans-serif"]


def chinese() -> str | None:
    """The first of FAMILIES that matplotlib finds here and that has LETTERS, if there is one."""
    found = next(filter(_has_letters, FAMILIES), None)
    if found is None:
        _notice_new_fonts()
        found = next(filter(_has_letters, FAMILIES), None)
    return found


def lacks(language: str, printed: bool = False) -> str:
    """The line that says which font figures in `language` lack on this machine, or (`printed`) the PDF of a
    page does; empty if none is known to."""
    if not language.startswith("zh") or (_printable() if printed else chinese()):
        return ""
    what = "the PDF shows boxes for them" if printed else "figures show boxes for them, or English labels"
    return f"no font here has Chinese letters, and {what}: {INSTALL}"


def _has_letters(family: str) -> bool:
    # Imported here, so that a page is printed without it.
    from matplotlib import font_manager

    wanted = font_manager.FontProperties(family=family)
    try:
        path = font_manager.fontManager.findfont(wanted, fallback_to_default=False)
    except ValueError:
        return False
    return set(map(ord, LETTERS)) <= font_manager.get_font(path).get_charmap().keys()


def _notice_new_fonts() -> None:
    """matplotlib keeps its list of fonts from process to process, and looks for none installed since."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    conda = font_manager.findSystemFonts(str(Path(sys.prefix) / "fonts"))  # where its font packages go
    for path in sorted({*font_manager.findSystemFonts(), *conda} - known):
        with contextlib.suppress(Exception):  # a file that FreeType cannot read: no font to draw with
            font_manager.fontManager.addfont(path)


def _printable() -> bool:
    """Whether a browser finds LETTERS, which asks fontconfig; elsewhere the system has them."""
    if shutil.which("fc-list") is None:
        return True
    codes = " ".join(f"{ord(letter):x}" for letter in LETTERS)
    found = subprocess.run(["fc-list", f":charset={codes}"], capture_output=True, text=True)
    return bool(found.stdout.strip())
