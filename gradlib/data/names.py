"""Names: which of them may name a folder, and how any of them is shown.

Solutions and studies have folders of their names. Classes, views, patients and files are called whatever
their data calls them, and are text wherever they are shown.
"""

import html
import re

__all__ = ["checked", "escape", "plain", "printable"]

FOLDER = re.compile(r"[^\W_][\w.,=+-]*")  # figures leave out of a legend what begins with _
LONGEST = 200  # bytes; file systems take 255
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows


def checked(name: object, what: str) -> str:
    """`name`, which is to be a folder's on every system; ValueError where it cannot, or would lead elsewhere.

    what: whose name it is, to begin the error with.
    """
    if not isinstance(name, str) or not FOLDER.fullmatch(name) or name.endswith("."):
        raise ValueError(f"{what} {name!r}: take letters, digits, '-', '_' and '.', no path")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"{what} {name[:40]!r}...: has {len(name.encode())} bytes; take at most {LONGEST}")
    if RESERVED.fullmatch(name):
        raise ValueError(f"{what} {name!r}: means a device on Windows; take another")
    return name


def plain(text: object) -> str:
    """`text` in one line of printable characters, with single spaces."""
    return printable(" ".join(str(text).split()))


def printable(text: str) -> str:
    """`text` without what controls a terminal, ends a line or changes the direction of writing."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def escape(text: object) -> str:
    """A name, safe in Markdown and in the HTML that comes of it."""
    safe = html.escape(plain(text), quote=False)
    safe = "".join(f"\\{c}" if c in "\\`*_{}[]|#$~!@:" else c for c in safe)
    return re.sub(
        r"^(\d*)([-+=.)])(?=[-=\s]|$)", r"\1\\\2", safe
    )  # at the start of a line, an entry of a list
