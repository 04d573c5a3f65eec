"""The phantom: deterministic, labelled as the real set is, written whole or not at all."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gradlib.data import phantom, phantom_frames, read_dataset

SMALL = {"patients": 6, "videos": 2, "frames": 4, "size": (108, 80)}  # 48 frames


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return phantom.write(tmp_path_factory.mktemp("phantom") / "set", **SMALL, seed=3).parent


def digests(folder):
    files = (f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).digest() for f in files}


def labels(folder):
    return sorted(folder.glob("*/labels/*.txt"))


def test_same_seed_same_bytes_and_another_seed_another_set(written, tmp_path):
    again = phantom.write(tmp_path / "again", **SMALL, seed=3).parent
    other = phantom.write(tmp_path / "other", **SMALL, seed=4).parent
    assert digests(written) == digests(again)
    pixels = {v for k, v in digests(written).items() if k.endswith(".png")}
    assert not pixels & set(digests(other).values())


def test_layout_is_a_real_users(written):
    assert sorted(p.name for p in written.iterdir()) == [
        "data.yaml",
        "phantom.json",
        "test",
        "train",
        "valid",
    ]
    images = sorted(written.glob("*/images/*.png"))
    assert len(images) == 6 * 2 * 4
    assert [f.parts[-3] + f.stem for f in labels(written)] == [f.parts[-3] + f.stem for f in images]
    with Image.open(images[0]) as image:
        assert image.size == (108, 80)
    # 12 and 20 % of 48 frames are 5.76 and 9.6.
    count = Counter(f.parts[-3] for f in images)
    assert count["valid"] in (5, 6)
    assert count["test"] in (9, 10)


def test_label_format_to_the_byte(written):
    with_jet = 0
    for file in labels(written):
        text = file.read_bytes().decode()
        *rows, empty, one_hot = text.split("\n")
        assert empty == ""
        assert one_hot in ("1 0 0", "0 1 0", "0 0 1")
        assert len(rows) <= 1
        for row in rows:
            kind, *corners = row.split(" ")
            x0, y0, x1, y1, x2, y2, x3, y3 = map(float, corners)
            assert kind in "0123"
            assert (x1, y1, x3, y3) == (x2, y0, x0, y2)  # an axis-aligned rectangle, clockwise
            assert 0 <= x0 < x2 <= 1
            assert 0 <= y0 < y2 <= 1
            with_jet += 1
    assert 0 < with_jet < len(labels(written))  # some frames have no jet


def test_it_is_read_without_a_problem(written):
    read = read_dataset(written / "data.yaml")
    assert read.problems == ()
    assert read.classes == phantom.CLASSES
    assert read.views == phantom.VIEWS
    assert len({frame.patient for frame in read.frames}) == 6
    assert len({frame.video for frame in read.frames}) == 12


def test_published_parts_share_videos(written):
    videos = {}
    for file in labels(written):
        videos.setdefault(file.stem.rsplit("-", 1)[0], set()).add(file.parts[-3])
    assert any(len(parts) > 1 for parts in videos.values())


def test_boxes_hold_the_colour(written):
    inside, outside = [], []
    for file in labels(written):
        rows = file.read_text().split("\n")[:-2]
        with Image.open(file.parents[1] / "images" / f"{file.stem}.png") as image:
            saturation = np.asarray(image.convert("HSV"))[..., 1].astype(float)
        for row in rows:
            corners = np.array(row.split()[1:], float).reshape(4, 2) * image.size
            (x0, y0), (x1, y1) = corners[0].astype(int), np.ceil(corners[2]).astype(int)
            inside.append(saturation[y0:y1, x0:x1].mean())
            rest = saturation.copy()
            rest[y0:y1, x0:x1] = np.nan
            outside.append(np.nanmean(rest))
    assert np.mean(np.array(inside) > np.array(outside)) > 0.9
    assert np.mean(inside) > 3 * np.mean(outside)


def test_classes_and_views_go_together_as_they_are_dealt():
    specs = phantom._plan(400, 3, 5, seed=0)  # 6,000 frames, none drawn
    jets = Counter(f"{s.kind} {s.view}" for s in specs if s.jet)
    assert set(jets) == set(phantom.JETS)
    for cell, count in phantom.JETS.items():
        assert jets[cell] / jets.total() == pytest.approx(count / sum(phantom.JETS.values()), abs=0.03), cell
    assert len(specs) == 6000
    assert 0.08 < sum(not s.jet for s in specs) / 6000 < 0.25


def test_patients_are_uneven_and_have_few_leaks():
    specs = phantom._plan(40, 3, 5, seed=0)
    frames = Counter(s.patient for s in specs)
    assert len(frames) == 40
    assert max(frames.values()) > 2 * min(frames.values())
    leaks = {p: {s.kind for s in specs if s.patient == p} - {None} for p in frames}
    assert np.mean([len(kinds) for kinds in leaks.values()]) < 2.5


def test_a_leak_shows_in_its_own_half_of_the_beat():
    for spec in phantom._plan(40, 3, 5, seed=1):
        if spec.jet:  # mitral and tricuspid valves are shut in systole, the others in diastole
            assert spec.systole == (spec.kind in ("MR", "TR"))


def test_a_second_writing_finds_it_done(written, monkeypatch):
    monkeypatch.setattr(phantom, "_fill", None)  # would fail if it were called
    assert phantom.write(written, **SMALL, seed=3) == written / "data.yaml"


def test_the_slower_of_two_writers_takes_the_others(tmp_path, monkeypatch):
    fill, folder = phantom._fill, tmp_path / "set"

    def overtaken(*arguments):
        monkeypatch.setattr(phantom, "_fill", fill)
        phantom.write(folder, **SMALL)
        fill(*arguments)

    monkeypatch.setattr(phantom, "_fill", overtaken)
    assert phantom.write(folder, **SMALL) == folder / "data.yaml"
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_is_not_ours_is_left_alone(written, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="mine holds something that is no phantom"):
        phantom.write(tmp_path / "mine", **SMALL)
    assert digests(tmp_path) == {"mine/notes.txt": hashlib.sha256(b"dear").digest()}
    before = digests(written)
    with pytest.raises(FileExistsError, match="a phantom of other parameters"):
        phantom.write(written, **SMALL, seed=5)
    assert digests(written) == before


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def stop(video, spec):
        drawn.append(spec)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return np.zeros((80, 108, 3), np.uint8), None

    monkeypatch.setattr(phantom_frames.Video, "frame", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.write(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"videos": 0}, {"frames": 0}, {"size": (40, 80)}])
def test_too_little_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="give 9 frames or more, 64 pixels a side or more"):
        phantom.write(tmp_path / "set", **SMALL | wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_phantom_has_every_part(tmp_path):
    path = phantom.write(tmp_path / "set", patients=9, videos=1, frames=1, size=(64, 64))
    assert {f.parts[-3] for f in labels(path.parent)} == {"train", "valid", "test"}


def test_the_default_is_named_by_all_it_depends_on(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(phantom, "write", _recording(phantom.write, made))
    phantom.ensure(tmp_path)
    phantom.ensure(tmp_path)
    monkeypatch.setattr(phantom_frames, "SPECKLE", 2 * phantom_frames.SPECKLE)
    phantom.ensure(tmp_path)
    phantom.ensure(tmp_path, marked=True)
    assert made[0] == made[1] and len(set(made)) == 3
    assert made[0].parent == tmp_path
    assert len(made[0].name) == len("phantom-") + 8


def test_a_marked_phantom_is_the_same_but_for_a_square_that_tells_the_view(written, tmp_path):
    marked, corners = phantom.write(tmp_path / "set", **SMALL, seed=3, marked=True).parent, set()
    for label in labels(written):
        path = label.relative_to(written)
        assert (marked / path).read_text() == label.read_text()
        image = str(path).replace("labels", "images").replace(".txt", ".png")
        plain, changed = (np.asarray(Image.open(folder / image)) for folder in (written, marked))
        y, x = (plain != changed).any(2).nonzero()
        corners.add((y.min(), x.min(), y.max(), x.max(), label.read_text().splitlines()[-1]))
    assert corners == {(0, 0, 7, 7, "1 0 0"), (0, 100, 7, 107, "0 1 0"), (72, 0, 79, 7, "0 0 1")}


def _recording(write, made):
    def record(folder, marked, progress):
        made.append(folder)

    record.__kwdefaults__ = write.__kwdefaults__
    return record


def test_the_mark_says_how_it_was_made(written):
    mark = json.loads((written / "phantom.json").read_text())
    assert mark["phantom"]["patients"] == 6
    assert mark["constants"]["SPECKLE"] == phantom_frames.SPECKLE
