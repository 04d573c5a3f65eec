"""Label rows, data.yaml, folds and loading, each worked out by hand on sets of a few frames."""

import os
import re
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from gradlib.data import FrameSet, faults, phantom, read_dataset, tables
from gradlib.data import dataset as dataset_module
from gradlib.data.dataset import Dataset, Frame, find_data_yaml
from gradlib.data.images import collate, letterbox, letterbox_boxes, read_rgb, unletterbox_boxes
from gradlib.data.labels import parse

HALF = "0 0.5 0.5 0.5 0.5"  # a box over the middle half of the image
YAML = "train: train/images\nval: valid/images\ntest: test/images\nnames: [AR, MR]\n"


def make(root: Path, files: dict[str, str | bytes | None], settings: str = YAML) -> Path:
    """A data set: "part/stem" -> its label text (None: no label file); returns its data.yaml."""
    for part in ("train", "valid", "test"):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        part, stem = name.split("/")
        colour = tuple(zlib.crc32(name.encode()).to_bytes(4)[:3])  # no two are the same image
        Image.new("RGB", (8, 4), colour).save(root / part / "images" / f"{stem}.png")
        if text is not None:
            raw = text.encode() if isinstance(text, str) else text
            (root / part / "labels" / f"{stem}.txt").write_bytes(raw)
    (root / "data.yaml").write_text(settings)
    return root / "data.yaml"


def faults_of(dataset: Dataset) -> list[faults.Problem]:
    """What is wrong with a set, but for what every set of a few frames lacks."""
    lacks = ("a folder without images", "names that no image has")
    return [problem for problem in dataset.problems if problem.what not in lacks]


def many(root: Path, patients: int = 6, frames: int = 4) -> Path:
    """`patients` patients with `frames` frames each, in all parts; each has both classes."""
    parts = ("train", "valid", "test")
    return make(
        root,
        {
            f"{parts[(p + f) % 3]}/p{p}-v{f // 2}-{f}": f"{f % 2} .5 .5 .5 .5\n\n1 0\n"
            for p in range(patients)
            for f in range(frames)
        },
    )


# --- rows ---


def test_box_and_polygon_are_the_same_box():
    # Corners (0.25, 0.25) to (0.75, 0.75): centre 0.5, sides 0.5.
    polygon = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    triangle = "0 0.25 0.25 0.75 0.25 0.5 0.75"
    for row in (HALF, polygon, triangle):
        labels = parse(row, "f.txt", classes=2)
        assert labels.boxes.tolist() == [[0, 0.5, 0.5, 0.5, 0.5]]
        assert labels.boxes.dtype == np.float32
        assert labels.one_hot is None
        assert labels.problems == ()


@pytest.mark.parametrize(
    "text",
    [f"{HALF}\n\n0 1 0", f"{HALF}\n0 1 0\n", f"0 1 0\n{HALF}", f"{HALF}\r\n\r\n0 1.0 0\r\n"],
    ids=["user's", "no empty line", "first", "CRLF"],
)
def test_one_hot_row_anywhere(text):
    labels = parse(text, "f.txt", classes=2, views=3)
    assert len(labels.boxes) == 1
    assert (labels.one_hot.index, labels.one_hot.length) == (1, 3)
    assert labels.problems == ()


@pytest.mark.parametrize("length", range(1, 12))
def test_a_single_one_among_zeros_is_never_a_box(length):
    for index in range(length):
        row = " ".join(str(int(i == index)) for i in range(length))
        labels = parse(row, "f.txt", classes=2)
        assert len(labels.boxes) == 0
        assert (labels.one_hot.index, labels.one_hot.length) == (index, length)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("0 0.5 0.5 0.5", "neither a box"),
        ("0 0.1 0.1 0.9 0.1 1.9", "neither a box"),
        ("0,0.5,0.5,0.5,0.5", "not all finite numbers"),
        ("0 0,5 0,5 0,5 0,5", "not all finite numbers"),
        ("AR 0.5 0.5 0.5 0.5", "not all finite numbers"),
        ("0 nan 0.5 0.5 0.5", "not all finite numbers"),
        ("0 0.5 inf 0.5 0.5", "not all finite numbers"),
        ("0.5 0.5 0.5 0.5 0.5", "unknown class"),
        ("2 0.5 0.5 0.5 0.5", "unknown class"),
        ("-1 0.5 0.5 0.5 0.5", "unknown class"),
        ("0 215 160 80 80", "outside 0-1"),
        ("0 0.5 0.5 -0.5 0.5", "outside 0-1"),
        ("0 0.5 0.5 0 0.5", "without area"),
        ("0 0.3 0.3 0.3 0.6 0.3 0.9", "without area"),
    ],
)
def test_a_faulty_row_is_named_and_left_out(row, what):
    labels = parse(f"{HALF}\n{row}\n1 0.5 0.5 0.5 0.5", "train/labels/f.txt", classes=2)
    assert labels.boxes[:, 0].tolist() == [0, 1]
    (problem,) = labels.problems
    assert (problem.file, problem.line, problem.value) == ("train/labels/f.txt", 2, row)
    assert what in problem.what
    assert problem.cure
    assert "\n" not in str(problem)
    assert "train/labels/f.txt, line 2" in str(problem)


@pytest.mark.parametrize("row", ["0 0 0", "1 1 0", "0.2 0.3 0.5", "2 0 0", "3 1 2"])
def test_three_numbers_without_a_single_one_are_no_view(row):
    labels = parse(f"{HALF}\n\n{row}", "f.txt", classes=2, views=3)
    assert labels.one_hot.index == -1
    assert [problem.what for problem in labels.problems] == ["not a one-hot row"]


def test_two_one_hot_rows():
    same, other = (parse(f"1 0 0\n{row}", "f.txt", 2, 3) for row in ("1 0 0", "0 1 0"))
    assert [labels.one_hot.index for labels in (same, other)] == [0, -1]
    assert [labels.problems[0].line for labels in (same, other)] == [2, 2]


def test_rounding_is_clipped_and_a_box_over_the_border_is_cut():
    # 0.9995 is the right edge 1.0005 / 1: within 1e-3 of the border, so merely rounded.
    rounded = parse("0 0.25 0.5 1.0005 0.2 0.4 0.2", "f.txt", classes=2)
    assert rounded.problems == ()
    assert rounded.boxes[0, 1] + rounded.boxes[0, 3] / 2 == 1
    # Centre 0.9 and width 0.4: from 0.7 to 1.1, cut to 0.7 .. 1, so centre 0.85, width 0.3.
    cut = parse("0 0.9 0.5 0.4 0.2", "f.txt", classes=2)
    assert cut.boxes[0] == pytest.approx([0, 0.85, 0.5, 0.3, 0.2])
    assert "outside the image" in cut.problems[0].what


# --- files ---


def test_reads_frames_views_patients(tmp_path):
    settings = YAML + "image_classes: [A4C, PSAX]\n"
    files = {
        "train/anna-v1-0": f"{HALF}\n\n0 1",
        "train/anna-v2-0": f"\ufeff{HALF}\r\n1 0",
        "test/bert-a-b.mp4-3": "\n1 0",
    }
    dataset = read_dataset(make(tmp_path, files, settings))
    assert faults_of(dataset) == []
    assert dataset.classes == ("AR", "MR")
    assert dataset.views == ("A4C", "PSAX")
    found = [(f.part, f.patient, f.video, f.view, len(f.boxes)) for f in dataset.frames]
    assert found == [
        ("train", "anna", "anna-v1", 1, 1),
        ("train", "anna", "anna-v2", 0, 1),
        ("test", "bert", "bert-a-b.mp4", 0, 0),
    ]
    table = tables.frames_table(dataset)
    assert table["image"][0] == "train/images/anna-v1-0.png"
    assert table["view"].tolist() == ["PSAX", "A4C", "A4C"]
    assert table["classes"].tolist() == ["AR", "AR", "none"]
    assert tables.class_by_view(dataset).to_numpy().tolist() == [[1, 1], [0, 0]]
    # train: two frames, one patient, two videos, two boxes; no valid part; test: one empty frame.
    rows = [[2, 1, 2, 2], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert tables.parts_table(dataset).iloc[:, :4].to_numpy().tolist() == rows


def test_unnamed_views_are_numbered_and_odd_lengths_reported(tmp_path):
    rows = {f"train/a-v-{i}": f"{HALF}\n0 0 1" for i in range(3)}
    dataset = read_dataset(make(tmp_path, rows | {"train/b-v-0": f"{HALF}\n0 1 0 0"}))
    assert dataset.views == ("view 1", "view 2", "view 3")
    assert [frame.view for frame in dataset.frames] == [2, 2, 2, -1]
    (problem,) = faults_of(dataset)
    assert (problem.file, problem.line, problem.value) == ("train/labels/b-v-0.txt", 2, "0 1 0 0")


def test_a_set_without_one_hot_rows_has_no_views_and_no_problem(tmp_path):
    dataset = read_dataset(make(tmp_path, {"train/a-v-0": HALF, "train/a-v-1": ""}))
    assert dataset.views == ()
    assert faults_of(dataset) == []
    assert tables.class_by_view(dataset).to_numpy().tolist() == [[1], [0]]


def test_faulty_files_are_reported(tmp_path):
    files = {
        "train/a-v-0": f"{HALF}\n1 0",
        "train/a-v-1": None,
        "train/a-v-2": HALF,
        "train/a-v-3": "0 0,5".encode("utf-16"),
    }
    path = make(tmp_path, files)
    (tmp_path / "train/images/a-v-4.jpg").write_bytes(b"not an image")
    (tmp_path / "train/labels/a-v-4.txt").write_text(HALF)
    (tmp_path / "train/labels/a-v-5.txt").write_text(HALF)
    dataset = read_dataset(path)
    assert [frame.image.stem for frame in dataset.frames] == [f"a-v-{i}" for i in range(3)]
    assert [frame.view for frame in dataset.frames] == [0, -1, -1]
    assert dataset.skipped == {"images": 2, "files": 1}
    found = {(problem.file, problem.what) for problem in faults_of(dataset)}
    assert found == {
        ("train/images/a-v-1.png", "an image without a label file, read as background"),
        ("train/labels/a-v-2.txt", "no one-hot row"),
        ("train/labels/a-v-3.txt", "an image or label file that cannot be read"),
        ("train/images/a-v-4.jpg", "an image or label file that cannot be read"),
        ("train/labels/a-v-5.txt", "a label file without an image"),
    }
    assert tables.problems_table(dataset).columns.tolist() == [
        "file", "line", "value", "what", "cure", "rule"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("val: x\nnames: [a]", ["train: missing"]),
        ("train: train/images", ["names: missing"]),
        ("train: [\n", ["line 2"]),
        ("- a\n", ["a data.yaml is a mapping"]),
        (YAML + "nc: 3", ["nc: expected 2", "got 3"]),
        (YAML + "patient: '('", ["patient", "'('"]),
        (YAML + "video: 3", ["video", "3"]),
        (YAML.replace("[AR, MR]", "AR"), ["names", "'AR'"]),
        (YAML.replace("[AR, MR]", "{1: AR, 2: MR}"), ["names", "{1: 'AR', 2: 'MR'}"]),
        (YAML.replace("[AR, MR]", "[AR, AR]"), ["names", "twice"]),
    ],
)
def test_an_unreadable_yaml_says_where(tmp_path, settings, words):
    with pytest.raises(ValueError, match=r"data\.yaml") as error:
        read_dataset(make(tmp_path, {"train/a-v-0": HALF}, settings))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such data\.yaml"):
        read_dataset(tmp_path / "nowhere.yaml")
    (tmp_path / "data.yaml").write_text("train: gone/images\nnames: [a]")
    with pytest.raises(FileNotFoundError, match=r"line 1: .*gone/images.*: no folder"):
        read_dataset(tmp_path / "data.yaml")
    with pytest.raises(ValueError, match="no readable image"):
        read_dataset(make(tmp_path / "empty", {}))


@pytest.mark.parametrize("names", ["[AR, MR]", "{0: AR, 1: MR}", "\n- AR\n- MR"])
def test_names_as_list_or_numbered(tmp_path, names):
    dataset = read_dataset(make(tmp_path, {"train/a-v-0": HALF}, f"train: train/images\nnames: {names}"))
    assert dataset.classes == ("AR", "MR")


@pytest.mark.parametrize(
    "entry",
    [
        "train/images",
        "./train/images",
        "../set/train/images",  # relative to the folder, though it looks like the parent's
        "set/train/images",  # relative to the parent
        "../train/images",  # what Roboflow writes
    ],
)
def test_paths_relative_in_several_ways(tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path / "set", {"train/a-v-0": HALF}, f"train: '{entry}'\nnames: [AR, MR]")
    dataset = read_dataset(path)
    assert dataset.frames[0].image == tmp_path / "set/train/images/a-v-0.png"
    assert faults_of(dataset) == []


def test_path_key_absolute_entries_and_lists(tmp_path):
    make(tmp_path / "set", {"train/a-v-0": HALF, "valid/b-v-0": HALF})
    elsewhere = tmp_path / "data.yaml"
    both = "[train/images, valid/images]"
    elsewhere.write_text(f"path: {tmp_path}/set\ntrain: {both}\nnames: [AR, MR]")
    assert [frame.part for frame in read_dataset(elsewhere).frames] == ["train", "train"]
    elsewhere.write_text(f"train: {tmp_path}/set/train/images\nnames: [AR, MR]")
    assert tables.frames_table(read_dataset(elsewhere))["image"].tolist() == ["set/train/images/a-v-0.png"]


def test_a_folder_that_does_not_exist_is_named_and_no_other_is_read_for_it(tmp_path):
    settings = YAML.replace("test/images", "../x/test/images. 1").replace("valid/i", "gone/i")
    path = make(tmp_path, {"train/a-v-0": HALF, "test/a-w-0": HALF}, settings)
    dataset = read_dataset(path)
    assert [frame.part for frame in dataset.frames] == ["train"]
    found = [(one.value, one.rule) for one in faults_of(dataset) if one.file == "data.yaml"]
    assert found[:2] == [("val: gone/images", "skipped"), ("test: ../x/test/images. 1", "skipped")]
    assert dataset.skipped == {"folders": 2}


def test_one_folder_for_two_parts_is_read_once(tmp_path):
    settings = "train: train/images\nval: train/images\nnames: [AR, MR]"
    dataset = read_dataset(make(tmp_path, {"train/a-v-0": HALF}, settings))
    assert len(dataset.frames) == 1
    assert [(one.what, one.rule) for one in faults_of(dataset)] == [("a folder named twice", "read")]
    with pytest.raises(
        ValueError, match="valid part has no frames: 'val: train/images' names another's; give it"
    ):
        dataset.split("published")


def test_folder_not_called_images_holds_its_labels(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a-v-0.JPG", "jpeg")
    (tmp_path / "a-v-0.txt").write_text(HALF)
    (tmp_path / "data.yaml").write_text("train: .\nnames: [AR]")
    (frame,) = read_dataset(tmp_path / "data.yaml").frames
    assert len(frame.boxes) == 1


def test_patient_and_video_expressions(tmp_path):
    settings = YAML + "patient: '_(.)$'\nvideo: '^..'\n"
    files = {"train/v1x_a": HALF, "train/v1y_a": HALF, "train/v2x_b": HALF}
    dataset = read_dataset(make(tmp_path, files, settings))
    assert [frame.patient for frame in dataset.frames] == ["a", "a", "b"]
    assert [frame.video for frame in dataset.frames] == ["v1", "v1", "v2"]
    assert faults_of(dataset) == []


def test_expressions_that_group_nothing_are_reported(tmp_path):
    dataset = read_dataset(make(tmp_path, {"train/frame1": HALF, "train/frame2": HALF}))
    assert [frame.patient for frame in dataset.frames] == ["frame1", "frame2"]
    patient, video = faults_of(dataset)
    assert (patient.value, video.value) == ("^[^-]+", "video: ^.*(?=-)")
    assert "another patient in every frame" in patient.what
    assert "does not match" in video.what


def test_fingerprint_follows_the_content_not_the_place(tmp_path):
    files = {"train/a-v-0": HALF, "train/a-v-1": HALF}
    one, two = (read_dataset(make(tmp_path / name, files)).fingerprint for name in "ab")
    assert one == two
    (tmp_path / "a/train/labels/a-v-0.txt").write_text("1 0.5 0.5 0.5 0.5")
    assert read_dataset(tmp_path / "a/data.yaml").fingerprint != two
    with (tmp_path / "b/train/images/a-v-1.png").open("ab") as image:
        image.write(b"\n")  # the same picture in other bytes
    assert read_dataset(tmp_path / "b/data.yaml").fingerprint != two


def test_a_slip_of_phantom_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data: 'phantm' is not there; .* 'phantom'\?$"):
        read_dataset("phantm")


def test_a_path_is_taken_from_the_project_folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_solution.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert find_data_yaml("sets/data.yaml") == tmp_path / "sets/data.yaml"
    assert find_data_yaml(tmp_path / "../data.yaml") == tmp_path.parent / "data.yaml"
    monkeypatch.setattr(phantom, "ensure", lambda folder, marked: folder / f"phantom-{marked:d}/data.yaml")
    assert find_data_yaml("phantom") == tmp_path / "data/phantom-0/data.yaml"
    assert find_data_yaml("phantom-marked") == tmp_path / "data/phantom-1/data.yaml"


# --- folds and leakage ---


def test_folds_hold_every_frame_once_and_no_patient_twice(tmp_path):
    dataset = read_dataset(many(tmp_path))
    tested = []
    for fold in range(3):
        parts = dataset.split(fold=fold, folds=3)
        assert sorted(f.image for p in parts.values() for f in p) == sorted(f.image for f in dataset.frames)
        patients = [{frame.patient for frame in part} for part in parts.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 6
        # Six patients alike: two are test; of the other four, in as many groups, one is valid.
        assert [len(part) for part in parts.values()] == [12, 4, 8]
        assert {frame.boxes[0, 0] for frame in parts["test"]} == {0, 1}
        tested += [frame.image for frame in parts["test"]]
    assert sorted(tested) == sorted(frame.image for frame in dataset.frames)
    assert tables.folds_table(dataset, 3).to_numpy().tolist() == [[8, 2, 4, 4]] * 3


def test_one_long_patient_does_not_validate_alone(tmp_path):
    boxes = np.array([[0, 0.5, 0.5, 0.2, 0.2]], np.float32)
    patients = ["long"] * 300 + [str(i % 40) for i in range(400)]
    frames = [Frame(tmp_path, boxes, -1, patient, "", "train", "") for patient in patients]
    dataset = Dataset(tmp_path, ("a",), (), tuple(frames), (), "")
    for fold in range(5):
        valid = dataset.split(fold=fold)["valid"]
        assert len({frame.patient for frame in valid}) >= 4 and len(valid) < 0.2 * len(frames)


def test_a_patient_gives_at_most_so_many_training_frames(tmp_path):
    dataset = read_dataset(many(tmp_path))
    whole, capped = (dataset.split(folds=3, max_frames_per_patient=most) for most in (0, 3))
    assert capped["test"] == whole["test"] and capped["valid"] == whole["valid"]
    for patient in {frame.patient for frame in whole["train"]}:
        frames, kept = ([f for f in parts["train"] if f.patient == patient] for parts in (whole, capped))
        assert len(frames) == 4 and kept == [frames[0], frames[1], frames[3]]


def test_folds_of_uneven_random_sets(tmp_path):
    """Whatever the set: no empty fold, and no fold far above its share and the largest patient."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        boxes = np.array([[0, 0.5, 0.5, 0.2, 0.2]], np.float32)
        frames = []
        for patient in range(rng.integers(5, 30)):
            for _ in range(int(rng.lognormal(2, 1)) + 1):
                own = boxes * [rng.integers(0, 4), 1, 1, 1, 1] if rng.random() < 0.9 else boxes[:0]
                own = np.maximum(own, 0).astype(np.float32)
                frames.append(Frame(tmp_path, own, -1, str(patient), "", "train", ""))
        dataset = Dataset(tmp_path, tuple("abcd"), (), tuple(frames), (), "")
        sizes = tables.folds_table(dataset, 5)["frames"]
        assert sizes.sum() == len(frames)
        assert sizes.min() > 0, trial


def test_folds_are_even_in_effective_patients_and_in_classes(tmp_path):
    # Frames a patient: one of 260, three of 60, and many of few; two classes, one of them in few patients.
    sizes = [260, 60, 60, 60, *[4, 9, 14, 20] * 6]
    box = np.array([[0, 0.5, 0.5, 0.2, 0.2]], np.float32)
    frames = [
        Frame(tmp_path, box + np.float32([who % 3 == 0, 0, 0, 0, 0]), -1, str(who), "", "train", "")
        for who, size in enumerate(sizes)
        for _ in range(size)
    ]

    def effective(part: list) -> float:
        n = np.unique([frame.patient for frame in part], return_counts=True)[1]
        return n.sum() ** 2 / np.square(n).sum()

    dataset = Dataset(tmp_path, ("a", "b"), (), tuple(frames), (), "")
    folds = [dataset.split(fold=fold)["test"] for fold in range(5)]
    patients, labels = ([getattr(f, name) for f in frames] for name in ("patient", "classes"))
    plain = StratifiedGroupKFold(5).split(frames, list(map(str, labels)), patients)
    before, after = [effective([frames[i] for i in test]) for _, test in plain], [*map(effective, folds)]
    assert min(after) > min(before) and np.std(after) < 0.7 * np.std(before)
    for label in (0, 1):
        counts = [sum(label in frame.classes for frame in part) for part in folds]
        assert min(counts) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "random"}, "'random' is unknown"),
        ({"fold": 5}, "fold 5 of folds=5: write 2 or more folds, and a fold below that number"),
        ({"fold": -1}, "fold -1 of folds=5"),
        ({"folds": 1}, "fold 0 of folds=1: write 2 or more folds"),
        ({"folds": 7}, "folds: 7 and a part to validate, but there are only 6 patients; write fewer"),
    ],
)
def test_impossible_splits_say_why(tmp_path, arguments, message):
    dataset = read_dataset(many(tmp_path))
    with pytest.raises(ValueError, match=re.escape(message)):
        dataset.split(**arguments)


def test_two_patients_cannot_be_split(tmp_path):
    dataset = read_dataset(many(tmp_path, patients=2))
    with pytest.raises(ValueError, match="2 patients; take the split 'published', or correct patient in"):
        dataset.split(folds=2)


def test_a_fold_that_leaves_one_patient_says_so(tmp_path):
    # Of two folds the larger has two of three patients; who is left cannot train and validate.
    dataset = read_dataset(many(tmp_path, patients=3))
    with pytest.raises(
        ValueError, match="tests all patients but 1, and one has to validate; write more folds"
    ):
        tables.folds_table(dataset, 2)


def test_published_split_and_its_leakage(tmp_path):
    files = {
        "train/a-v-0": HALF,
        "train/b-v-0": HALF,
        "valid/a-v-1": HALF,  # the same video
        "valid/a-w-0": HALF,  # another video of the same patient
        "test/b-v-1": HALF,
        "test/c-v-0": HALF,  # a new patient, whose video is called as another's
    }
    dataset = read_dataset(make(tmp_path, files, YAML + "video: '-(.)-'"))
    parts = dataset.split("published")
    assert [len(part) for part in parts.values()] == [2, 2, 2]
    table = tables.parts_table(dataset).loc[["valid", "test"]]
    assert table["frames"].tolist() == [2, 2]
    assert table["patients"].tolist() == [1, 2]
    assert table["patients_in_train"].tolist() == [1, 1]
    assert table["frames_patient_in_train"].tolist() == [2, 1]
    assert table["frames_video_in_train"].tolist() == [1, 1]
    assert table["video_share"].tolist() == [0.5, 0.5]


def test_published_needs_every_part(tmp_path):
    dataset = read_dataset(make(tmp_path, {"train/a-v-0": HALF, "valid/b-v-0": HALF}))
    with pytest.raises(ValueError, match="published test part has no frames"):
        dataset.split("published")


# --- images ---


def test_letterbox_centres_on_black():
    # 8 x 4 into 16: scale 2, 16 x 8 pixels, 4 black rows above and below.
    square = letterbox(Image.new("RGB", (8, 4), (9, 8, 7)), 16)
    assert (square.shape, square.dtype) == ((3, 16, 16), torch.uint8)
    assert (square[:, 4:12] == torch.tensor([9, 8, 7])[:, None, None]).all()
    assert (square[:, :4] == 0).all()
    assert (square[:, 12:] == 0).all()


def test_boxes_move_with_the_image_and_back():
    # The whole of an 8 x 4 image is the middle half of the square's height.
    whole = np.array([[1, 0.5, 0.5, 1, 1]], np.float32)
    assert letterbox_boxes(whole, 8, 4, 16).tolist() == [[1, 0.5, 0.5, 1, 0.5]]
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0.25, 0.5, (50, 6)).astype(np.float32)  # all within the image
    for width, height in ((430, 320), (31, 77), (1, 9), (224, 224)):
        moved = letterbox_boxes(boxes, width, height, 224)
        back = unletterbox_boxes(moved, width, height, 224)
        np.testing.assert_allclose(back[:, 2:], boxes[:, 2:], atol=1e-4 * max(1, 9 / width))
        np.testing.assert_array_equal(back[:, :2], boxes[:, :2])


def test_a_box_that_is_found_is_cut_at_the_border_of_the_image():
    # Of 8 x 4 pixels on a square of 8, rows 2 to 5: from above the image down to its middle, and below it.
    found = np.array([[0, 0.9, 0.5, 0.25, 0.5, 0.5], [0, 0.9, 0.5, 0.9, 0.5, 0.1]], np.float32)
    cut = unletterbox_boxes(found, 8, 4, 8)
    assert cut == pytest.approx(np.array([[0, 0.9, 0.5, 0.25, 0.5, 0.5], [0, 0.9, 0.5, 1, 0.5, 0]]))


def test_a_painted_box_is_where_its_letterboxed_box_says():
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[20:60, 30:90] = 255  # x 0.25-0.75, y 0.25-0.75
    square = letterbox(Image.fromarray(pixels), 60)
    cx, cy, w, h = letterbox_boxes(np.array([[0, 0.5, 0.5, 0.5, 0.5]]), 120, 80, 60)[0, 1:]
    ys, xs = np.nonzero(square[0].numpy() > 127)
    found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert found == pytest.approx([60 * v for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 100), (100, 100, 100)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (4, 4), (255, 255, 255, 0)), (0, 0, 0)),  # transparent: black
        (Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4), (10, 20, 30)),
        (Image.fromarray(np.full((4, 4), 257 * 90, np.uint16)), (90, 90, 90)),
        (Image.fromarray(np.full((4, 4), 90, np.uint16)), (90, 90, 90)),  # 8 bits stored in 16
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("LA", (4, 4), (100, 255)), (100, 100, 100)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),  # magenta and yellow ink
    ],
    ids=["grey", "RGBA", "transparent", "palette", "16 bit", "16 bit dark", "1 bit", "LA", "CMYK"],
)
def test_every_kind_of_image_becomes_rgb(tmp_path, image, expected):
    path = tmp_path / ("a.tiff" if image.mode == "CMYK" else "a.png")
    image.save(path)
    assert read_rgb(path)[0].getpixel((0, 0)) == expected


def test_frames_in_memory_equal_frames_from_disk(tmp_path):
    frames = read_dataset(many(tmp_path)).frames
    cached, streamed = FrameSet(frames, 32), FrameSet(frames, 32, cache_bytes=0)
    kept, unknown = (
        FrameSet(read_dataset(tmp_path / "data.yaml", image_size=size).frames, 32) for size in (32, 64)
    )
    handmade = FrameSet([replace(frame, size=None) for frame in frames], 32, cache_bytes=0)
    assert cached.sizes[0].tolist() == [8, 4]
    for other in (streamed, kept, unknown, handmade):
        assert (cached.sizes == other.sizes).all()
        for one, two in zip(cached, other, strict=True):
            assert torch.equal(one[0], two[0]) and one[0].shape == (3, 32, 32)
            assert torch.equal(one[1], two[1])
            assert one[2:] == two[2:]


def test_checking_and_training_open_each_file_once(tmp_path, monkeypatch):
    path, opened, real_open = many(tmp_path), Counter(), Path.open

    def counting(self, *arguments, **options):
        if self.is_relative_to(tmp_path):  # imports open others
            opened[self.relative_to(tmp_path).as_posix()] += 1
        return real_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", counting)
    dataset = read_dataset(path, image_size=32)
    for part in dataset.split(folds=3).values():
        list(FrameSet(part, 32))
    assert set(opened.values()) == {1} and len(opened) == 24 + 24 + 1  # images, labels, data.yaml
    list(FrameSet(dataset.frames, 64))  # of another size they are decoded again
    assert opened.total() == 49 + 24
    monkeypatch.setattr(dataset_module, "CACHE_BYTES", 24 * 3 * 32 * 32 - 1)
    assert all(frame.square is None for frame in read_dataset(path, image_size=32).frames)


def test_the_fingerprint_does_not_depend_on_what_is_kept(tmp_path):
    path = many(tmp_path)
    assert read_dataset(path).fingerprint == read_dataset(path, image_size=32).fingerprint


def test_collate_numbers_boxes_by_image(tmp_path):
    files = {
        "train/a-v-0": f"{HALF}\n1 0 0 0 0 0 0 0\n1 0.5 0.5 0.5 0.5",
        "train/a-v-1": "0 0 1 0 0 0 0 0",
        "train/b-v-0": "1 0.5 0.5 0.5 0.5",
    }
    frames = FrameSet(read_dataset(make(tmp_path, files)).frames, 16)
    images, boxes, views, indices = collate([frames[i] for i in (0, 1, 2)])
    assert (images.shape, images.dtype) == ((3, 3, 16, 16), torch.uint8)
    # 8 x 4 in a square: height halves.
    row = [0.5, 0.5, 0.5, 0.25]
    assert boxes.tolist() == [[0, 0, *row], [0, 1, *row], [2, 1, *row]]
    assert boxes.dtype == torch.float32
    assert views.tolist() == [0, 2, -1]
    assert indices.tolist() == [0, 1, 2]
    assert (views.dtype, indices.dtype) == (torch.int64, torch.int64)
    _, boxes, _, _ = collate([frames[1], frames[1]])
    assert boxes.shape == (0, 6)


def test_a_truncated_image_is_named_when_loaded(tmp_path):
    frames = read_dataset(make(tmp_path, {"train/a-v-0": HALF})).frames
    image = tmp_path / "train/images/a-v-0.png"
    Image.effect_noise((64, 64), 50).save(image)
    image.write_bytes(image.read_bytes()[:1000])  # since it was read
    with pytest.raises(ValueError, match=r"a-v-0\.png: cannot be decoded"):
        FrameSet(frames, 32)


def test_the_phantom_reads_without_a_problem(tmp_path):
    dataset = read_dataset(phantom.write(tmp_path / "set", patients=8, videos=1, frames=3))
    assert dataset.problems == ()
    assert (dataset.classes, dataset.views) == (phantom.CLASSES, phantom.VIEWS)
    assert len({frame.patient for frame in dataset.frames}) == 8
    assert all(frame.view >= 0 for frame in dataset.frames)


def test_a_video_of_two_views_is_found(tmp_path):
    rows = {
        "train": {"p-a-0": "1 0", "p-a-1": "1 0", "p-b-0": "0 1"},
        "test": {"p-a-2": "0 1", "p-b-1": "0 1"},
    }
    for part, frames in rows.items():
        for folder in ("images", "labels"):
            (tmp_path / part / folder).mkdir(parents=True)
        for stem, one_hot in frames.items():
            Image.new("RGB", (8, 8)).save(tmp_path / part / "images" / f"{stem}.png")
            (tmp_path / part / "labels" / f"{stem}.txt").write_text(one_hot)
    text = "train: train/images\nval: []\ntest: test/images\nnames: [AR]\nimage_classes: [A4C, PSAX]\n"
    (tmp_path / "data.yaml").write_text(text)
    changes = tables.view_changes(read_dataset(tmp_path / "data.yaml"))
    assert changes.index.tolist() == [("p", "p-a")]
    assert changes.iloc[0].to_dict() == {"train A4C": 2, "test PSAX": 1}


def frame_of(view, *classes):
    boxes = np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in classes], np.float32).reshape(-1, 5)
    return Frame(Path(), boxes, view, "", "", "train", "")


def test_the_view_is_guessed_from_the_classes_of_the_jets():
    # Class 0 is seen in view 0 twice and in view 1 once; classes 0 and 1 together only in view 2, where the
    # order and the number of boxes do not count; a frame without jets in view 1; one frame has no view.
    train = [
        frame_of(0, 0),
        frame_of(0, 0, 0),
        frame_of(1, 0),
        frame_of(2, 1, 0, 1),
        frame_of(1),
        frame_of(-1, 3),
    ]
    test = [frame_of(2, 0), frame_of(0, 0, 1), frame_of(1), frame_of(1, 3), frame_of(-1, 0)]
    assert tables.views_from_jets(train, test, 3) == [
        [0.66667, 0.33333, 0],
        [0, 0, 1],
        [0, 1, 0],
        [0.4, 0.4, 0.2],  # class 3 alone is in no training frame with a view: two, two and one of five
        [0.66667, 0.33333, 0],  # the guess is told the jets, never the view
    ]
    assert tables.views_from_jets([], test[:1], 2) == [[0, 0]]
    assert tables.views_from_jets(train[-1:], test[:1], 0) == [[]]


# --- the real set, when GRADLIB_REAL_DATA is the path of its data.yaml ---


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("GRADLIB_REAL_DATA"):
        pytest.skip("GRADLIB_REAL_DATA is not set")
    return read_dataset(os.environ["GRADLIB_REAL_DATA"])


def test_real_frames(real):
    assert len(real.frames) == 1140
    assert len({frame.patient for frame in real.frames}) == 38
    assert real.classes == ("AR", "MR", "PR", "TR")
    assert len(real.views) == 3
    assert Counter((problem.rule, problem.what) for problem in real.problems) == {
        ("read", "no one-hot row"): 2,
        ("read", "the same image twice"): 28,  # nothing moved between two frames of a video
        ("read", "the same image in another part"): 18,
        ("read", "the same image with other labels"): 46,  # boxes drawn anew
    }
    assert real.skipped == {}
    assert sum(frame.view < 0 for frame in real.frames) == 2
    assert all(len(frame.boxes) == 1 for frame in real.frames)
    table = tables.class_by_view(real)
    assert table.to_numpy().sum() == 1140
    # Pulmonary regurgitation is all but only seen from the short axis, aortic mostly from PLAX.
    assert table.loc["PR", "view 2"] > 0.9 * table.loc["PR"].sum()
    assert table.loc["AR", "view 3"] > 0.7 * table.loc["AR"].sum()


def test_real_published_parts_leak(real):
    table = tables.parts_table(real).loc[["valid", "test"]]
    assert (table["patients_in_train"] >= table["patients"] - 1).all()
    assert (table["video_share"] > 0.95).all()


def test_real_views_change_within_videos(real):
    changes = tables.view_changes(real)
    assert len(changes) == 40  # of 106 videos
    # The training part and the test part name the same video differently.
    assert ((changes["train view 2"] > 0) & (changes["test view 1"] > 0)).sum() > 10


def test_real_folds(real):
    table = tables.folds_table(real, 5)
    assert table["frames"].sum() == 1140
    assert table["patients"].sum() == 38
    assert (table["boxes"] > 0).all(axis=None)
    # A fifth is 228; one patient alone has 261 frames.
    assert table["frames"].between(171, 350).all()
