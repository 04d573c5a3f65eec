"""Frames shown beside predictions are read as untrusted input: no path leads out of the data set's place."""

import os
import struct
import zlib

import pytest
from PIL import Image

from gradlib.evidence import predictions


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data set in its place, an image in it and one beside that place; what finds an image there."""
    monkeypatch.chdir(tmp_path)
    for folder in ("place/set/images", "private"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 6), "red").save(tmp_path / folder / "a.png")
    (tmp_path / "place/set/data.yaml").touch()
    return lambda name, path="place/set/data.yaml": predictions.image({"data": path}, name)


def test_a_frame_is_found_in_the_place_of_its_data(data):
    assert data("images/a.png").shape == (6, 8, 3) == data("../set/images/a.png").shape


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../private/a.png",
            "../../../../../../../etc/passwd",
            "/etc/passwd",
            "images",
            "",
            ".",
            "images/b.png",
        ),
        *("images/\0", "x" * 300, "images/link.png", "images/pipe.png", "images/text.png", "images/huge.png"),
    ],
)
def test_no_other_file_is_taken_for_a_frame(name, data, tmp_path):
    images = tmp_path / "place/set/images"
    (images / "link.png").symlink_to(tmp_path / "private/a.png")
    os.mkfifo(images / "pipe.png")
    (images / "text.png").write_text("root:x:0:0")
    wide = struct.pack(">II5B", 100_000, 100_000, 8, 2, 0, 0, 0)  # a header that claims 30 GB
    chunks = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
        for k, d in ((b"IHDR", wide), (b"IDAT", b""))
    ]
    (images / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert data(str(tmp_path / name) if name == "" else name) is None


@pytest.mark.parametrize("path", ["~nobody/data.yaml", "nowhere/data.yaml", "place/set", "\0", "x" * 300, ""])
def test_without_its_data_a_frame_is_not_there(path, data):
    assert data("images/a.png", path) is None
