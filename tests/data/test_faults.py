"""Data sets of strangers: each kind of fault is named in one line, dealt with by its rule, and counted."""

import io
import json
import os
import shutil
import struct
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as limits
from hypothesis import strategies as st
from PIL import Image

from gradlib.__main__ import main
from gradlib.data import FrameSet, data_yaml, images, read_dataset, tables
from gradlib.data.data_yaml import DataYaml, read_data_yaml
from gradlib.data.faults import RULES, UNPRINTABLE, Refused
from gradlib.data.files import UnreadableFile, is_inside, read_text
from gradlib.data.folders import sources
from gradlib.data.images import read_rgb
from gradlib.data.labels import MIN_SIDE, parse
from gradlib.data.yaml_file import YamlFile
from gradlib.study import spec

YAML = """\
train: train/images
val: valid/images
test: test/images
nc: 2
names: [AR, MR]
image_classes: [A4C, PSAX]
"""
AR, MR = "0 0.5 0.5 0.5 0.5\n\n1 0\n", "1 0.4 0.4 0.2 0.2\n\n0 1\n"
FRAMES = {"train/a-v-0": AR, "train/a-v-1": MR, "train/a-v-2": AR, "valid/b-v-0": AR, "test/c-v-0": MR}
HEALTHY = (5, 5, 5)  # frames, boxes, views


def picture(seed: object = 0, mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> Image.Image:
    """Noise that no other seed has."""
    random = np.random.default_rng(zlib.crc32(ascii(seed).encode()))
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def healthy(root: Path) -> Path:
    """A set with nothing wrong in it; returns its data.yaml."""
    for name, text in FRAMES.items():
        part, stem = name.split("/")
        for folder in ("images", "labels"):
            (root / part / folder).mkdir(parents=True, exist_ok=True)
        picture(name).save(root / part / "images" / f"{stem}.png")
        (root / part / "labels" / f"{stem}.txt").write_text(text)
    (root / "data.yaml").write_text(YAML)
    return root / "data.yaml"


@dataclass(frozen=True)
class Case:
    """How a healthy set is spoilt, and what has to come out."""

    name: str
    spoil: object  # of the set's folder
    what: tuple[str, ...]  # the kinds of all problems
    left: tuple[int, int, int] = HEALTHY
    file: str = ""  # of the first problem
    line: int | None = None
    value: str = ""  # part of it
    said: str = ""  # part of the message


IMAGE, LABEL, SETTINGS = "train/images/a-v-0.png", "train/labels/a-v-0.txt", "data.yaml"
ONE_FRAME_LESS, ONE_BOX_LESS, ONE_VIEW_LESS = (4, 4, 4), (5, 4, 5), (5, 5, 4)
ONE_FRAME_MORE = (6, 6, 6)


def row(text: str, what: str, left=ONE_BOX_LESS) -> Case:
    """A label file whose first row is `text`; MR takes the class that no box would have."""

    def spoil(root):
        (root / LABEL).write_text(f"{text}\n\n1 0\n", newline="")

    return Case(f"row {text[:24]!r}", spoil, (what,), left, LABEL, 1, text[:8])


def rows(name: str, text: str | bytes, *what: str, left=HEALTHY, line=None, value="", said="") -> Case:
    raw = text.encode() if isinstance(text, str) else text
    case_of = LABEL if what else ""
    return Case(name, lambda root: (root / LABEL).write_bytes(raw), what, left, case_of, line, value, said)


def pixels(name: str, content: bytes | Image.Image, *what: str, left=HEALTHY, value="", **save) -> Case:
    """The first image replaced by `content`."""

    def spoil(root):
        if isinstance(content, bytes):
            (root / IMAGE).write_bytes(content)
        else:
            content.save(root / IMAGE, **{"format": "png", **save})

    return Case(name, spoil, what, left, IMAGE if what else "", value=value)


def settings(name: str, old: str, new: str, what: str, left=HEALTHY, **expected) -> Case:
    """data.yaml with `old` replaced by `new`."""

    def spoil(root):
        assert old in YAML
        (root / SETTINGS).write_text(YAML.replace(old, new))

    return Case(name, spoil, (what,), left, SETTINGS, **expected)


def bytes_of(image: Image.Image, kind: str = "png", **save) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and has next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        length = struct.pack(">I", len(content))
        return length + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return bytes_of(picture(1), exif=exif)


def replace(name: str, *make) -> object:
    """A function that puts something else where the file `name` was."""

    def spoil(root):
        (root / name).unlink()
        for one in make:
            one(root / name, root)

    return spoil


def link(target: str) -> object:
    def make(path, root):
        path.symlink_to(target.format(root=root, outside=root.parent.parent))

    return make


def sparse(size: int) -> object:
    def make(path, root):
        with path.open("wb") as file:
            file.truncate(size)  # it takes no space

    return make


def outside(name: str) -> object:
    """A link to a copy of the file outside of the set's place."""

    def spoil(root):
        elsewhere = root.parent.parent / "elsewhere"
        elsewhere.mkdir()
        (root / name).rename(elsewhere / "file")
        (root / name).symlink_to(elsewhere / "file")

    return spoil


def rename(old: str, new: str) -> object:
    return lambda root: (root / old).rename(root / new)


def copy(old: str, new: str, text: str | None = None) -> object:
    """A second image of the same bytes, with a label file of its own."""

    def spoil(root):
        (root / new).write_bytes((root / old).read_bytes())
        label = (root / new).parents[1] / "labels" / f"{Path(new).stem}.txt"
        label.write_text(AR if text is None else text)

    return spoil


def add(name: str, content: bytes | str = b"") -> object:
    raw = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(raw)


def extra(part: str, stem: str, kind: str = "png") -> object:
    """One more image with its own label file."""

    def spoil(root):
        picture(part + stem).save(root / part / "images" / f"{stem}.{kind}")
        (root / part / "labels" / f"{stem}.txt").write_text(AR)

    return spoil


def emptied(root):
    for folder in ("images", "labels"):
        for file in (root / "valid" / folder).iterdir():
            file.unlink()


def both(*spoils) -> object:
    def spoil(root):
        for one in spoils:
            one(root)

    return spoil


CANNOT_BE_READ = "an image or label file that cannot be read"
HARDLY_ANY_PIXELS = "an image of hardly any pixels, once letterboxed"
BACKGROUND = "an image without a label file, read as background"
LONELY = "a label file without an image"
NO_NAMES = "expected [first, second] or names numbered from 0"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

# fmt: off
CASES = [
    # --- rows ---
    row("0 0.5 0.5 0.5", "neither a box, a polygon nor a one-hot row"),
    row("0 0.5 0.5 0.4 0.4 0.9", "a box with a confidence", HEALTHY),
    row("0 0.5 0.5 0.4 0.4 1.9", "neither a box, a polygon nor a one-hot row"),
    row("0 .1 .1 .2 .2 .3 .3 .4", "neither a box, a polygon nor a one-hot row"),
    row("0,0.5,0.5,0.5,0.5", "not all finite numbers"),
    row("0 0,5 0,5 0,5 0,5", "not all finite numbers"),
    row("0;0.5;0.5;0.5;0.5", "not all finite numbers"),
    row("AR 0.5 0.5 0.5 0.5", "not all finite numbers"),
    row("0 1_0 0.5 0.5 0.5", "not all finite numbers"),  # float() reads ten
    row("0 ０.５ 0.5 0.5 0.5", "not all finite numbers"),  # full-width digits, which float() reads
    row("0 0x1p-1 0.5 0.5 0.5", "not all finite numbers"),
    row("0 0.5 0.5\u00a00.5 0.5", "not all finite numbers"),  # a no-break space, at which split() splits
    row("0 0.5 0.5\u20280.5 0.5", "not all finite numbers"),  # a line separator, at which splitlines() does
    row(f"0 0.{'5' * 100} 0.5 0.5 0.5", "not all finite numbers"),
    row("0 nan 0.5 0.5 0.5", "not all finite numbers"),
    row("0 0.5 -Infinity 0.5 0.5", "not all finite numbers"),
    row("0 0.5 1e999 0.5 0.5", "not all finite numbers"),
    row("0 0.5 0.5 1e99 0.5", "coordinates outside 0-1"),
    row("0 215 160 80 80", "coordinates outside 0-1"),
    row("0 0.5 0.5 -0.5 0.5", "coordinates outside 0-1"),
    row("0 0.5 0.5 0 0.5", "a box without area"),
    row("0 0.5 0.5 1e-300 0.5", "a box without area"),
    row("0 0.3 0.3 0.3 0.6 0.3 0.9", "a box without area"),
    row("0.5 0.5 0.5 0.5 0.5", "an unknown class index"),
    row("2 0.5 0.5 0.5 0.5", "an unknown class index"),
    row("-1 0.5 0.5 0.5 0.5", "an unknown class index"),
    row("1e99 0.5 0.5 0.5 0.5", "an unknown class index"),
    row("0 0.9 0.5 0.4 0.2", "a box that reaches outside the image", HEALTHY),
    rows("a row twice", f"{AR}{AR[:18]}", "the same box twice", line=4, value="0 0.5"),
    rows("no one-hot row", AR[:18], "no one-hot row", left=ONE_VIEW_LESS),
    rows("one-hot with two ones", f"{AR[:18]}1 1\n", "not a one-hot row", left=ONE_VIEW_LESS, line=2),
    rows("one-hot with no one", f"{AR[:18]}0 0\n", "not a one-hot row", left=ONE_VIEW_LESS, line=2),
    rows(
        "one-hot of another length", f"{AR[:18]}0 0 1\n",
        "a one-hot row of another length than there are views", left=ONE_VIEW_LESS, line=2, value="0 0 1",
    ),
    rows("two views", f"{AR}0 1\n", "a second one-hot row", left=ONE_VIEW_LESS, line=4, value="0 1"),
    rows("an endless one-hot row", f"{AR}1{' 0' * 5000}", "a box without area", line=4),
    # --- label files ---
    rows("UTF-16", AR.encode("utf-16"), CANNOT_BE_READ, left=ONE_FRAME_LESS, value="is not UTF-8 text ("),
    rows(
        "UTF-16 without a mark", AR.encode("utf-16-le"),
        CANNOT_BE_READ, left=ONE_FRAME_LESS, value="is not UTF-8 text (NUL",
    ),
    rows("Latin-1", b"0 .5 .5 .5 \xe9", CANNOT_BE_READ, left=ONE_FRAME_LESS, value="is not UTF-8 text ("),
    rows("NUL bytes", b"\0" * 99, CANNOT_BE_READ, left=ONE_FRAME_LESS, value="is not UTF-8 text (NUL"),
    rows("a byte order mark", AR.encode("utf-8-sig")),
    rows("CR only", AR.replace("\n", "\r")),
    rows("CRLF", AR.replace("\n", "\r\n")),
    rows("CR only and a fault", "0 x 0 0 0\r1 0", "not all finite numbers", left=ONE_BOX_LESS, line=1),
    Case(
        "2 GB of labels", replace(LABEL, sparse(2**31)), (CANNOT_BE_READ,),
        ONE_FRAME_LESS, LABEL, value="is too large (2,147,483,648 bytes",
    ),
    Case(
        "a pipe of labels", replace(LABEL, lambda path, root: os.mkfifo(path)),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, LABEL, value="is not a regular file (p",
    ),
    Case(
        "a folder of labels", replace(LABEL, lambda path, root: path.mkdir()),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, LABEL, value="is not a regular file (d",
    ),
    Case(
        "labels linked to nothing", replace(LABEL, link("nowhere")),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, LABEL, value="not found",
    ),
    Case(
        "labels linked to themselves", replace(LABEL, link("a-v-0.txt")),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, LABEL, value="symbolic links",
    ),
    Case(
        "labels outside", outside(LABEL), (CANNOT_BE_READ,),
        ONE_FRAME_LESS, LABEL, value="is outside the folder it belongs to (../",
    ),
    Case("no labels", replace(LABEL), (BACKGROUND,), (5, 4, 4), IMAGE, said="add train/labels/a-v-0.txt"),
    Case("no image", replace(IMAGE), (LONELY,), ONE_FRAME_LESS, LABEL),
    Case(
        "labels in capitals", rename(LABEL, "train/labels/A-V-0.TXT"), (BACKGROUND, LONELY), (5, 4, 4), IMAGE,
        said="add train/labels/a-v-0.txt",
    ),
    Case("labels twice", add("train/labels/a-v-0.TXT", AR), (LONELY,), file="train/labels/a-v-0.TXT"),
    # --- image files ---
    pixels("an empty image", b"",
           CANNOT_BE_READ, left=ONE_FRAME_LESS, value="cannot be decoded (none of PNG"),
    pixels("no image at all", b"hello",
           CANNOT_BE_READ, left=ONE_FRAME_LESS, value="cannot be decoded (none of PNG"),
    pixels("half a PNG", bytes_of(picture(1))[:300],
           CANNOT_BE_READ, left=ONE_FRAME_LESS, value="cannot be decoded ("),
    pixels("half a JPEG", bytes_of(picture(1), "jpeg")[:-99],
           CANNOT_BE_READ, left=ONE_FRAME_LESS, value="cannot be decoded ("),
    pixels(
        "100,000 x 100,000", png_header(100_000, 100_000),
        CANNOT_BE_READ, left=ONE_FRAME_LESS, value="100",
    ),
    pixels(
        "more than Pillow warns of", png_header(10_000, 10_000),
        CANNOT_BE_READ, left=ONE_FRAME_LESS, value="cannot be decoded (10000 x 10000",
    ),
    pixels("a PostScript program", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
           CANNOT_BE_READ, left=ONE_FRAME_LESS, value="cannot be decoded (none of PNG"),
    Case(
        "a huge image file", replace(IMAGE, sparse(2**30)), (CANNOT_BE_READ,),
        ONE_FRAME_LESS, IMAGE, value="is too large (1,073,741,824 bytes",
    ),
    Case(
        "a pipe as image", replace(IMAGE, lambda path, root: os.mkfifo(path)),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, IMAGE, value="is not a regular file (p",
    ),
    Case(
        "a folder as image", replace(IMAGE, lambda path, root: path.mkdir()),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, IMAGE, value="is not a regular file (d",
    ),
    Case(
        "a device as image", replace(IMAGE, link("/dev/zero")),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, IMAGE, value="is not a regular file (c",
    ),
    Case(
        "an image linked to nothing", replace(IMAGE, link("nowhere")),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, IMAGE, value="not found",
    ),
    Case(
        "an image linked to itself", replace(IMAGE, link("a-v-0.png")),
        (CANNOT_BE_READ,), ONE_FRAME_LESS, IMAGE, value="cannot be read (Too many levels of symbolic links",
    ),
    Case(
        "an image outside", outside(IMAGE), (CANNOT_BE_READ,),
        ONE_FRAME_LESS, IMAGE, value="is outside the folder it belongs to (../",
    ),
    Case("an image linked inside", both(
        rename(IMAGE, "store.png"), lambda root: (root / IMAGE).symlink_to(root / "store.png")), ()),
    pixels("turned by EXIF", turned(6), "an image that its EXIF data turns", value="6"),
    pixels(
        "an animation", picture(1), "an image of several frames, the first was read",
        format="gif", save_all=True, append_images=[picture(2)],
    ),
    pixels("16 bits", Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300),
           "an image of more than 8 bits a channel", value="I;16"),
    pixels("floats", Image.fromarray(np.linspace(0, 1, 192, dtype=np.float32).reshape(12, 16)),
           "an image of more than 8 bits a channel", format="tiff", value="F"),
    pixels("floats that are none", Image.fromarray(np.full((12, 16), np.nan, np.float32)),
           CANNOT_BE_READ, left=ONE_FRAME_LESS, format="tiff", value="pixels that are not finite"),
    pixels("one pixel", picture(1, size=(1, 1)), HARDLY_ANY_PIXELS, value="1 x 1"),
    pixels("a line", picture(1, size=(400, 5)), HARDLY_ANY_PIXELS, value="400 x 5"),
    *(pixels(f"mode {mode}", picture(1, mode)) for mode in ("L", "LA", "P", "RGBA", "1")),
    pixels("mode CMYK", picture(1, "CMYK"), format="jpeg"),
    pixels("damaged EXIF data", bytes_of(picture(1), "jpeg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")),
    Case("a suffix in capitals", rename(IMAGE, "train/images/a-v-0.PNG"), ()),
    Case(
        "no suffix of an image", add("train/images/scan.dcm"), ("neither an image nor a label file",),
        file="train/images/scan.dcm",
    ),
    Case("an empty folder among images", lambda root: (root / "train/images/more").mkdir(), ()),
    Case(
        "two images of a stem", lambda root: picture(1).save(root / "train/images/a-v-0.jpg"),
        ("a second image of the same stem",), file=IMAGE, said="a-v-0.jpg",
    ),
    Case(
        "a stem in two parts", extra("valid", "a-v-0"), ("the same stem in another part",),
        ONE_FRAME_MORE, "valid/images/a-v-0.png", value=IMAGE,
    ),
    Case(
        "an image twice", copy(IMAGE, "train/images/a-v-9.png"), ("the same image twice",),
        ONE_FRAME_MORE, "train/images/a-v-9.png", value=IMAGE,
    ),
    Case(
        "an image in two parts", copy(IMAGE, "test/images/a-v-9.png"), ("the same image in another part",),
        ONE_FRAME_MORE, "test/images/a-v-9.png", value=IMAGE,
    ),
    Case(
        "an image twice with two labels", copy(IMAGE, "train/images/a-v-9.png", MR),
        ("the same image twice", "the same image with other labels"),
        ONE_FRAME_MORE, "train/images/a-v-9.png", value=IMAGE,
    ),
    Case(
        "a line end in a name", extra("train", "a-v\n-9"),
        ("a name with control characters or undecodable bytes", LONELY),
        file="train/images/a-v\\n-9.png",
    ),
    Case(
        "a name of undecodable bytes", extra("train", "a-v-\udcff"),
        ("a name with control characters or undecodable bytes", LONELY),
        file="train/images/a-v-\\udcff.png",
    ),
    # --- folders ---
    Case("an empty part", emptied, ("a folder without images",), ONE_FRAME_LESS, "valid/images"),
    settings(
        "no such part", "valid/images", "nowhere/imgs", "a folder that does not exist", ONE_FRAME_LESS,
        value="nowhere/imgs", line=2, said="nothing was read",
    ),
    Case(
        "no such part, nor its folder", lambda root: (root / "valid").rename(root / "other"),
        ("a folder that does not exist",), ONE_FRAME_LESS, SETTINGS, 2, "valid/images", "nothing was read",
    ),
    settings(
        "a part of another computer", "valid/images", "/content/set/valid/images",
        "a folder that is not there, one of that name was read", line=2, said="write valid/images",
    ),
    Case(
        "an image of a list that is not there",
        both(add("valid.txt", "valid/images/b-v-0.png\nvalid/images/z.png\n"),
             lambda root: (root / SETTINGS).write_text(YAML.replace("valid/images", "valid.txt"))),
        ("an image that is not there",), file="valid.txt", line=2, value="valid/images/z.png",
    ),
    Case(
        "no class of an image",
        lambda root: (root / SETTINGS).write_text(YAML.replace("A4C, PSAX]", "a, b]\nimage_class: (.)-v-")),
        ("no image class",), (5, 5, 4), "test/images/c-v-0.png",
    ),
    settings(
        "a part twice", "valid/images", "train/images", "a folder named twice", ONE_FRAME_LESS,
        line=2, value="val: train/images", said="it was read once",
    ),
    Case(
        "stems as the default does not expect", both(rename(IMAGE, "train/images/a.png"),
        rename(LABEL, "train/labels/a.txt")), ("a default that does not match every file's stem",),
        file=SETTINGS, value="video: ^.*(?=-)", said="1 of 5 are their own, as 'a'",
    ),
    settings("a view that no image has", "[A4C, PSAX]", "[t, v, x]\nimage_class: '^.'",
             "image_classes that no image has", line=6, value="1 of 3: x"),
    settings(
        "a view for all", "[A4C, PSAX]", "[images]\nimage_class: '/(.*)/'", "one view for every image",
        line=7, value="images",
    ),
    Case(
        "a row of an image that is not there",
        both(add("views.csv", "file,class\na-v-0,A\na-v-1.png,A\n./train/images/a-v-2.png,A\n"
                 "b-v-0,B\nz,B\nc-v-0,B\nx/c-v-0,B\n"),
             add(SETTINGS, YAML.replace("image_classes: [A4C, PSAX]", "image_class: views.csv"))),
        ("rows of images that are not there",), file="views.csv", line=6, value="2 of 7: z, x/c-v-0",
    ),
    Case("no training part", lambda root: (root / "train").rename(root / "other"), ("no folder",),
         file=SETTINGS, line=1, value="train/images"),
    settings("a part outside", "train/images", "/", "a folder outside of the data set's place", line=1),
    settings("a part above", "test/images", "../../..", "a folder outside of the data set's place", line=3),
    Case(
        "a part linked outside",
        both(
            lambda root: (root / "valid").rename(root.parent.parent / "valid"),
            lambda root: (root / "valid").symlink_to(root.parent.parent / "valid"),
        ),
        ("a folder outside of the data set's place",), file=SETTINGS, line=2, value="valid/images",
    ),
    Case("a folder in capitals", rename("train/images", "train/Images"), ("no folder",),
         file=SETTINGS, line=1, value="train/images"),
    Case(
        "no readable image at all",
        lambda root: [file.write_bytes(b"") for file in root.rglob("*.png")],
        ("no readable image",), file=SETTINGS, said="the first of 5 faults",
    ),
    # --- data.yaml ---
    Case("no data.yaml", replace(SETTINGS), ("no such data.yaml",), file=SETTINGS),
    Case("a data.yaml that links to itself", replace(SETTINGS, link("data.yaml")),
         ("cannot be read (Too many",), file=SETTINGS),
    Case("a pipe as data.yaml", replace(SETTINGS, lambda path, root: os.mkfifo(path)),
         ("is not a regular file",), file=SETTINGS),
    Case("a huge data.yaml", replace(SETTINGS, sparse(2**31)), ("is too large",),
         file=SETTINGS, value="2,147,483,648"),
    Case("a data.yaml in UTF-16", lambda root: (root / SETTINGS).write_text(YAML, "utf-16"),
         ("is not UTF-8 text",), file=SETTINGS, line=1),
    Case("an empty data.yaml", add(SETTINGS), ("a data.yaml is a mapping",), file=SETTINGS),
    Case("a list as data.yaml", add(SETTINGS, "- train"), ("a data.yaml is a mapping",), file=SETTINGS),
    settings("broken YAML", "names: [AR", "names: [[AR", "not valid YAML", line=6),
    settings("an alias of nothing", "[AR, MR]", "*all", "not valid YAML", line=5, said="undefined alias"),
    Case("an alias", add(SETTINGS, YAML.replace("[AR, MR]", "&a [AR, MR]") + "more: *a\n"), ()),
    Case("a billion laughs", add(SETTINGS, ALIASES + "names: *i\n"), ("more than 100,000 values",),
         file=SETTINGS, line=1, said="aliases repeat"),
    settings("an alias of itself", "[AR, MR]", "&a [*a]", "nested too deeply, or within itself", line=5),
    Case("deep nesting", add(SETTINGS, "names: " + "[" * 30_000), ("nested more than",),
         file=SETTINGS, line=1),
    settings("a tag", "nc: 2", "nc: !!python/object/apply:os.getcwd []", "leave it out", line=4),
    settings("a character that cannot be", "AR", '"\\UFFFFFFFF"', "not valid YAML"),
    settings("a key twice", "nc: 2", "train: test/images", "the key 'train' again", line=4),
    settings("a mapping as key", "nc: 2", "{a: b}: 2", "a key that is not a text", line=4),
    settings("no names", "names", "nams", "names: missing"),
    settings("no train", "train: train/images", "train:", "train: missing", line=1),
    settings("a key mistyped", "test:", "tests:", "an unknown key like one that is known", ONE_FRAME_LESS,
             line=3, value="tests", said="write test"),
    settings("a number as folder", "train/images", "3", "train: expected list, got 3", line=1),
    settings("a mapping as folder", "train/images", "{a: b}", "train: expected list, got {'a': 'b'}", line=1),
    settings("nothing in a list of folders", "valid/images", "[valid/images, null]",
             "val[1]: expected string, got None", line=2),
    settings("a list as path", "nc: 2", "path: [a, b]", "path: expected string, got ['a', 'b']", line=4),
    settings("names as a number", "[AR, MR]", "7", NO_NAMES, line=5, value="names", said="got 7"),
    settings("names as a text", "[AR, MR]", "AR", NO_NAMES, line=5, said="got 'AR'"),
    settings("names from 1", "[AR, MR]", "{1: AR, 2: MR}", NO_NAMES, line=5, said="got {1: 'AR', 2: 'MR'}"),
    settings("a name that is null", "[AR, MR]", "[AR, null]", "names[1]: expected string, got None", line=5),
    settings("an empty name", "[AR, MR]", "[AR, '']", "at least 1 character", line=5, said="''"),
    settings("a name with a line end", "[AR, MR]", '["A\\nR", MR]', "expected no control character", line=5),
    settings("a name of half a character", "[AR, MR]", '["\\ud800", MR]', "cannot be shown", line=5),
    settings("a very long name", "[AR, MR]", f"[AR, {'M' * 101}]", "at most 100 characters", line=5),
    settings("a name with markup", "[AR, MR]", "[<b>AR</b>, MR]", "a name with markup",
             line=5, value="<b>AR</b>"),
    settings("a name twice", "[AR, MR]", "[AR, AR]", "a name given twice", line=5),
    settings("too many names", "[AR, MR]", str([*range(2001)]), "at most 2000 items", line=5),
    settings("classes without boxes", "nc: 2\nnames: [AR, MR]", "names: [AR, MR, PR, TR]",
             "names that no image has", line=4, value="2 of 4: PR, TR"),
    settings("nc of another number", "nc: 2", "nc: 3", "nc: expected 2, the number of names, got 3", line=4),
    settings("nc as a text", "nc: 2", "nc: many", "nc: expected integer, got 'many'", line=4),
    settings("image_classes as a text", "[A4C, PSAX]", "A4C", NO_NAMES, line=6, value="image_classes"),
    settings("patient as a number", "nc: 2", "patient: 5", "patient: expected string, got 5", line=4),
    settings("a broken expression", "nc: 2", "patient: '('", "not a regular expression", line=4),
    settings("an endless repeat", "nc: 2", "patient: 'a{99999999999}'", "not a regular expression", line=4),
    settings("a very long expression", "nc: 2", f"video: {'a' * 501}", "at most 500 characters", line=4),
    settings("an expression for no stem", "nc: 2", "patient: '^x-'",
             "an expression that does not match every file's stem", line=4, value="patient: ^x-",
             said="5 of 5 are their own"),
    settings("an expression for nothing", "nc: 2", "patient: '^x*'",
             "an expression that does not match every file's stem", line=4, said="5 of 5"),
    settings("an expression for all", "nc: 2", "patient: '.*'",
             "an expression that finds another patient in every frame", line=4, value=".*"),
]
# fmt: on


def test_the_healthy_set_is(tmp_path, capsys):
    assert read_dataset(healthy(tmp_path), strict=True).problems == ()
    assert main(["check", str(tmp_path / "data.yaml"), "--strict"]) == 0
    assert capsys.readouterr().out == (
        "0 problems; left out: nothing\n5 frames, 5 boxes\n3 parts: train 3, valid 1, test 1\n"
        "3 patients: a 3, b 1, c 1\n2 views: A4C 3, PSAX 2\n"
    )


def test_the_corpus_covers_every_kind():
    assert len({case.name for case in CASES}) == len(CASES) > 100
    assert {what for case in CASES for what in case.what} >= set(RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_named_and_nothing_is_silent(tmp_path, capsys, case):
    path = healthy(tmp_path / "place" / "set")
    case.spoil(path.parent)
    if case.what and case.what[0] not in RULES:  # an error
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            read_dataset(path)
        message = str(error.value)
        where = f"{path}, line {case.line}: " if case.line else f"{path}: "
        assert message.startswith(where) and case.what[0] in message
        assert case.value in message and case.said in message and message.isprintable()
        assert main(["check", str(path)]) == 2
        assert capsys.readouterr().err == f"gradlib: {message}\n"
        return
    dataset = read_dataset(path)
    assert Counter(problem.what for problem in dataset.problems) == Counter(case.what)
    found = (
        len(dataset.frames),
        sum(len(f.boxes) for f in dataset.frames),
        sum(f.view >= 0 for f in dataset.frames),
    )
    assert found == case.left
    for problem in dataset.problems[:1]:
        assert (problem.file, problem.line) == (case.file, case.line)
        assert case.value in problem.value and case.said in problem.cure
    texts = [str(problem) for problem in dataset.problems]
    assert all(text.isprintable() or "\u00a0" in text for text in texts)

    # What is left can be written, and trained on.
    for table in (tables.problems_table(dataset), tables.frames_table(dataset)):
        table.to_csv(tmp_path / "table.csv")
        json.dumps(table.to_dict("records"), default=str, ensure_ascii=False).encode()
    assert all(item[0].shape == (3, 32, 32) for item in FrameSet(dataset.frames, 32))

    strictly = [text for text, one in zip(texts, dataset.problems, strict=True) if one.rule != "read"]
    assert main(["check", str(path), "--strict"]) == (2 if strictly else int(bool(texts)))
    out, err = capsys.readouterr()
    assert out.splitlines()[: len(texts)] == texts
    if strictly:
        assert len(err.splitlines()) == 1 and f"the first of {len(strictly)} is {strictly[0]}; " in err


# --- what takes more than a file ---


def test_check_lists_all_counts_kinds_and_says_what_is_left(tmp_path, capsys):
    path = healthy(tmp_path)
    (tmp_path / LABEL).write_text("x\n0 0.9 0.5 0.4 0.2\n\n1 0\n")
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().out == (
        "train/labels/a-v-0.txt, line 1: 'x': not all finite numbers; "
        "write digits 0 to 9, a point for decimals and spaces between\n"
        "train/labels/a-v-0.txt, line 2: '0 0.9 0.5 0.4 0.2': a box that reaches outside the image; "
        "cut at the border\n"
        "\n"
        "     1 skipped: not all finite numbers\n"
        "     1 read: a box that reaches outside the image\n"
        "2 problems; left out: 1 row\n"
        "5 frames, 5 boxes\n3 parts: train 3, valid 1, test 1\n"
        "3 patients: a 3, b 1, c 1\n2 views: A4C 3, PSAX 2\n"
    )


def test_strict_refuses_in_one_line_with_the_command_that_lists_all(tmp_path):
    path = healthy(tmp_path)
    (tmp_path / LABEL).write_text("x\n0 0.9 0.5 0.4 0.2\n\n1 0\n")  # skipped, and read
    (tmp_path / "train/labels/a-v-1.txt").unlink()  # guessed
    with pytest.raises(
        Refused, match=r"the first of 2 is .*`python -m gradlib check .*/data\.yaml`"
    ) as error:
        read_dataset(path, strict=True)
    assert str(error.value).isprintable()
    assert [problem.rule for problem in error.value.problems] == ["guessed", "skipped", "read"]


def test_a_study_may_be_strict(tmp_path, monkeypatch):
    shutil.copytree(Path(__file__).parents[2] / "notebooks", tmp_path / "notebooks")
    healthy(tmp_path)
    (tmp_path / "a.yaml").write_text("data: data.yaml\nsolutions: [baseline]\nparameters: {strict: true}\n")
    monkeypatch.chdir(tmp_path)
    study = spec.read_spec("a.yaml")
    assert [job.parameters["strict"] for job in (study.data, *study.runs)] == [True, True]


def test_what_was_left_out_is_counted_by_what_it_is(tmp_path):
    path = healthy(tmp_path)
    (tmp_path / LABEL).write_text("x\ny\n\n1 0 0\n")
    (tmp_path / "train/images/a-v-1.png").write_bytes(b"")
    (tmp_path / "valid").rename(tmp_path / "other")
    dataset = read_dataset(path)
    assert dataset.skipped == {"rows": 2, "images": 1, "folders": 1, "views": 1}
    table = tables.problems_table(dataset)
    assert table.groupby("rule").size().to_dict() == {"skipped": 5}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("(a|a)*$", "an expression that takes too long: 6 names"),
        ("(?:a|aa|a,)+b", "an expression that takes too long: 6 names"),
        # These take years with Python's own `re`.
        *((expression, "") for expression in ("(a+)+$", "(.*,){30}x", "(?:a?){60}a{60}$", r"(a*)*\1b")),
        # These would fill the memory: `regex` writes them out.
        *((f"{'(' * 3}a{f'{{{n}}})' * 3}", "it repeats too often") for n in (1000, 999_999_999)),
        (f"{'(' * 40}a{'+)' * 40}", "it repeats too often"),
    ],
)
def test_an_expression_that_never_ends_is_ended(tmp_path, monkeypatch, expression, said):
    monkeypatch.setattr(data_yaml, "TIMEOUT_S", 0.5)
    path = healthy(tmp_path)
    path.write_text(f"{YAML}patient: '{expression}'\n")
    stem = f"train/{{}}/{'a,' * 30}{'a' * 60}!.{{}}"
    picture("long").save(tmp_path / stem.format("images", "png"))
    (tmp_path / stem.format("labels", "txt")).write_text(AR)
    began = time.monotonic()
    if said:
        with pytest.raises(ValueError, match=rf"line 7: .*{said}") as error:
            read_dataset(path)
        assert str(error.value).isprintable()
    else:
        assert len(read_dataset(path).frames) == 6
    assert time.monotonic() - began < 30  # on a busy machine; else two


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = healthy(tmp_path)
    opened, listed = Path.open, Path.iterdir

    def denied(self, *arguments, **options):
        if self.name in ("a-v-0.png", "a-v-1.txt", "images"):
            raise PermissionError(13, "Permission denied", str(self))
        return (listed if self.is_dir() else opened)(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)  # as it is for whoever is not root
    problems = read_dataset(path).problems
    assert [(one.file, one.value) for one in problems] == [
        ("train/images/a-v-0.png", "cannot be read (Permission denied)"),
        ("train/labels/a-v-1.txt", "cannot be read (Permission denied)"),
        ("data.yaml", "^[^-]+"),  # one frame of each patient is left
    ]
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ValueError, match="a folder that cannot be listed; Permission denied"):
        read_dataset(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_it_is_seen(tmp_path, orientation):
    # Red stands in the first stored row and column; a viewer shows it where EXIF's table says.
    stored = Image.new("RGB", (6, 4))
    stored.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide, high = (6, 4) if orientation < 5 else (4, 6)
    x = 0 if orientation in (1, 4, 5, 8) else wide - 1
    y = 0 if orientation in (1, 2, 5, 6) else high - 1
    for kind in ("png", "tiff"):
        stored.save(tmp_path / f"a.{kind}", exif=exif)
        image, notes, _ = read_rgb(tmp_path / f"a.{kind}")
        assert image.size == (wide, high)
        assert image.getpixel((x, y)) == (255, 0, 0)
        assert [note.value for note in notes] == ([f"orientation {orientation}"] if orientation > 1 else [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[-5, 100, 255]]), [0, 100, 255]),
        (np.float32([[0, 2.0**32, 2.0**33]]), [0, 128, 255]),
        (np.uint16([[0, 128, 255]]), [0, 128, 255]),  # 8 bits stored in 16
        (np.uint16([[0, 257 * 3, 65535]]), [0, 3, 255]),
        (np.int32([[0, 2**24, 2**30]]), [0, 1, 64]),
    ],
)
def test_more_than_8_bits_become_8(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    image, _, _ = read_rgb(tmp_path / "a.tiff")
    assert np.asarray(image)[0].tolist() == [[value] * 3 for value in expected]


# --- properties: whatever is written, nothing raises but one line, and what comes out is legal ---


def check_label(raw: bytes, path: Path) -> None:
    """A label file: a Fault, or boxes inside the image and a view, and no row is silently lost."""
    path.write_bytes(raw)
    try:
        text = read_text(path, within=path.parent)
    except UnreadableFile as error:
        assert one_line(error) and str(error).startswith(str(path))
        return
    labels = parse(text, "f.txt", classes=3, views=3)
    boxes = labels.boxes.astype(np.float64)
    assert np.isin(boxes[:, 0], [0, 1, 2]).all()
    assert (boxes[:, 3:] > 0).all()
    assert (boxes[:, 1:3] - boxes[:, 3:] / 2 > -1e-6).all()  # a rounding of float32
    assert (boxes[:, 1:3] + boxes[:, 3:] / 2 < 1 + 1e-6).all()
    assert labels.one_hot is None or -1 <= labels.one_hot.index < labels.one_hot.length
    rows = [row for row in text.replace("\r", "\n").split("\n") if row.strip(" \t")]
    left = len(rows) - len(boxes) - sum(problem.rule == "skipped" for problem in labels.problems)
    assert left in (0, labels.one_hot is not None)
    assert all(one_line(problem) for problem in labels.problems)


def check_settings(raw: bytes, path: Path) -> None:
    """A data.yaml: settings, or one line."""
    path.write_bytes(raw)
    try:
        settings = read_data_yaml(path)
        assert settings.names and all(name and one_line(name) for name in settings.names)
        problems = settings.problems()
        folders = list(sources(settings, problems))
        assert folders and all(is_inside(source, settings.boundary) for *_, source in folders)
        assert all(one_line(problem) for problem in problems)
    except (ValueError, FileNotFoundError) as error:
        assert one_line(error) and str(error).startswith(str(path))


def check_study(raw: bytes, path: Path) -> None:
    """A study file: a mapping, or one line."""
    path.write_bytes(raw)
    try:
        assert isinstance(YamlFile(path, "study file").values, dict)
    except (ValueError, FileNotFoundError) as error:
        assert one_line(error) and str(error).startswith(str(path))


def check_image(raw: bytes, path: Path) -> None:
    """An image file: an RGB image, or one line."""
    path.write_bytes(raw)
    try:
        assert read_rgb(path)[0].mode == "RGB"
    except ValueError as error:
        assert one_line(error) and str(error).startswith(str(path))


def check_set(changed: tuple[str, bytes], path: Path) -> None:
    """A set with one other file: a frame for every image that is not left out, or one line."""
    for name, content in {**ORIGINALS, changed[0]: changed[1]}.items():
        (path.parent / name).write_bytes(content)
    try:
        dataset = read_dataset(path)
    except (ValueError, FileNotFoundError) as error:
        assert one_line(error) and str(error).startswith(str(path))
        return
    assert all(frame.boxes[:, 0].max(initial=0) < len(dataset.classes) for frame in dataset.frames)
    assert all(-1 <= frame.view < len(dataset.views) for frame in dataset.frames)
    assert all(one_line(problem) for problem in dataset.problems)
    if changed[0] != SETTINGS:
        assert len(dataset.frames) + dataset.skipped.get("images", 0) == len(FRAMES)


def one_line(text: object) -> bool:
    return bool(str(text)) and not UNPRINTABLE.search(str(text))


def mutated(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Some of an original's bytes replaced, put in, doubled or cut off."""
    place = st.integers(0, max(map(len, originals)))
    change = st.tuples(place, st.integers(0, 8), st.one_of(st.binary(max_size=8), st.sampled_from(SPICE)))

    def apply(original: bytes, changes: list) -> bytes:
        for at, length, new in changes:
            original = original[:at] + new + original[at + length :]
        return original

    return st.builds(apply, st.sampled_from(originals), st.lists(change, min_size=1, max_size=6))


# What readers stumble over, as bytes.
SPICE = [text.encode() for text in (
    "*a", "&a ", "!!int ", "!!float ", "!!timestamp x", "!!python/name:os ", "<<: ", "? ", "- ", ": ", "[",
    "{", "}", "\n", "\r", "\t", "\0", "'", '"', "\\x", "%YAML 9.9\n", "---\n", "...", "|\n", ">-\n", "#",
    "null", "~", "1e999", "nan", ".inf", "0x", "1:99:99", "2020-99-99", "9" * 99, "1_0", "\u2028", "../",
)] + [b"\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xed\xa0\x80", b"\x80"]  # fmt: skip
NUMBERS = st.one_of(
    st.floats(-0.5, 1.5).map(repr),
    st.integers(-2, 4).map(str),
    st.sampled_from(
        ["nan", "-inf", "1e999", "1e-999", "1_0", "0x1", "０", ",", "0,5", "\u2028", "\0", "\u00a0"]
    ),
    st.text(max_size=6),
)
GAPS = st.sampled_from([" "] * 12 + ["  ", "\t", "\n", "\n\n", "\r\n", "\r", "\x0b", "\u2029"])
LABELS = st.lists(st.tuples(NUMBERS, GAPS).map("".join), max_size=30).map("".join)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates())
VALUES = st.recursive(
    st.one_of(SCALARS, st.sampled_from(["train/images", "..", "/", "^[^-]+", "(", "AR"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS.filter(bool), inner, max_size=4),
    max_leaves=8,
)
KEYS = list(DataYaml.model_fields)
MAPPINGS = st.builds(
    lambda legal, found: yaml.safe_dump({**(yaml.safe_load(YAML) if legal else {}), **found}).encode(),
    st.booleans(), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=5),
)  # fmt: skip
PICTURES = [
    *(bytes_of(picture(1), kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp")),
    *(
        bytes_of(picture(1, mode), kind)
        for mode, kind in (("P", "png"), ("LA", "png"), ("1", "tiff"), ("CMYK", "jpeg"))
    ),
    bytes_of(picture(1), "tiff", compression="tiff_lzw"),
    bytes_of(picture(1), "gif", save_all=True, append_images=[picture(2)]),
    bytes_of(picture(1), "webp", save_all=True, append_images=[picture(2)]),
    turned(6),
]
STUDY = (
    b"name: a\nsolutions: [baseline, {name: late, from: gradnorm, grid: {alpha: [0.5, 1]}}]\nseeds: [0, 1]\n"
)
STUDY += b"parameters: {epochs: 2}\nsearch:\n  solution: gradnorm\n  space: {alpha: {low: 0.0, high: 3.0}}\n"
ORIGINALS = {LABEL: AR.encode(), IMAGE: bytes_of(picture("train/a-v-0")), SETTINGS: YAML.encode()}
PROPERTIES = {
    "labels": (LABELS.map(str.encode), check_label),
    "label bytes": (st.binary() | mutated([AR.encode(), MR.encode("utf-16")]), check_label),
    "settings": (MAPPINGS, check_settings),
    "settings' bytes": (st.binary() | mutated([YAML.encode()]), check_settings),
    "studies' bytes": (mutated([STUDY]), check_study),
    "images": (mutated(PICTURES), check_image),
    "sets": (
        st.one_of([st.tuples(st.just(name), mutated([content])) for name, content in ORIGINALS.items()]),
        check_set,
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Where a property's file is written: beside a healthy set's data.yaml, or in its place."""
    return healthy(tmp_path_factory.mktemp("place") / "set")


def hold(name: str, path: Path, examples: int, start: int = 0) -> int:
    """Try a property on so many inputs; returns how many there were."""
    strategy, check = PROPERTIES[name]
    tried = 0

    @seed(start)
    @limits(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(found: bytes | tuple[str, bytes]) -> None:
        nonlocal tried
        tried += 1
        check(found, path)

    run()
    return tried


@pytest.mark.parametrize("name", PROPERTIES)
def test_no_input_ends_in_anything_but_one_line(name, files, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    assert hold(name, files, 60) > 50


@pytest.mark.skipif("GRADLIB_FUZZ_MINUTES" not in os.environ, reason="GRADLIB_FUZZ_MINUTES is not set")
def test_no_input_does_for_minutes(files, monkeypatch, capsys):
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    end, tried, start = time.monotonic() + 60 * float(os.environ["GRADLIB_FUZZ_MINUTES"]), Counter(), 1
    while time.monotonic() < end:
        for name in PROPERTIES:
            tried[name] += hold(name, files, 1000, start)
        start += 1
    with capsys.disabled():
        print(f"\n{sum(tried.values()):,} inputs: {dict(tried)}")


UNIT = st.floats(0, 1)


def inside(centre: float, side: float) -> bool:
    return side >= 2 * MIN_SIDE and centre - side / 2 >= 0 and centre + side / 2 <= 1


@limits(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 2), UNIT, UNIT, UNIT, UNIT), max_size=5, unique=True), st.integers(0, 3)
)
def test_legal_labels_come_back_to_the_last_digit(boxes, view):
    legal = [box for box in boxes if inside(box[1], box[3]) and inside(box[2], box[4])]
    lines = [" ".join(map(repr, box)) for box in legal]
    one_hot = " ".join(str(int(index == view)) for index in range(3)) if view < 3 else ""
    labels = parse("\n".join([*lines, "", one_hot]), "f.txt", 3, 3)
    assert labels.problems == ()
    assert np.array_equal(labels.boxes, np.array(legal, np.float32).reshape(-1, 5))
    assert labels.one_hot.index == view if view < 3 else labels.one_hot is None
