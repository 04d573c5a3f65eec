"""Layouts of data sets as others write them, and image classes from elsewhere than label files."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from gradlib.__main__ import main
from gradlib.data import tables
from gradlib.data.dataset import read_dataset

BOX = "0 0.5 0.5 0.4 0.4\n"


def make(root, files: dict[str, str], settings: str):
    """Images, each with its pixels, texts, and the data.yaml."""
    root.mkdir(parents=True, exist_ok=True)
    for at, (name, text) in enumerate(files.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            Image.new("RGB", (16, 12), (40 * at, 40, 80)).save(root / name)
        else:
            (root / name).write_text(text)
    (root / "data.yaml").write_text(f"names: [AR, MR]\n{settings}\n")
    return root / "data.yaml"


COCO = {
    **{f"images/train2017/{i}.jpg": "" for i in range(3)},
    **{f"labels/train2017/{i}.txt": BOX for i in range(3)},
}


def read(path, boxes: int, *problems: str):
    dataset = read_dataset(path)
    assert sum(len(frame.boxes) for frame in dataset.frames) == boxes
    known = ("an expression that finds another patient in every frame", "names that no image has")
    known = (*known, "a default that does not match every file's stem")  # as of most sets
    assert [p.what for p in dataset.problems if p.what not in known] == list(problems), dataset.problems
    return dataset


@pytest.mark.parametrize(
    "entry",
    ["train: images/train2017", "path: .\ntrain: images/train2017", "path: ../coco\ntrain: images/train2017",
     "path: coco\ntrain: images/train2017", "train: [images/train2017]", "train: images", "train: ./images/"],
)  # fmt: skip
def test_labels_lie_where_the_last_images_is_labels(tmp_path, entry):
    dataset = read(make(tmp_path / "coco", COCO, entry), 3)
    assert dataset.frames[0].name == "images/train2017/0.jpg"


@pytest.mark.parametrize("start", ["./images/", "images/", "ABSOLUTE/images/"])
def test_a_list_of_images_names_them_from_its_place_or_from_the_path(tmp_path, start):
    start = start.replace("ABSOLUTE", str(tmp_path / "coco"))
    lines = "\n".join(f"{start}train2017/{i}.jpg" for i in (0, 2)) + "\n"
    path = make(tmp_path / "coco", COCO | {"lists/train.txt": lines}, "train: lists/train.txt")
    lone = "a label file without an image"  # of the image that the list leaves out
    assert [f.name for f in read(path, 2, lone).frames] == [f"images/train2017/{i}.jpg" for i in (0, 2)]


@pytest.mark.parametrize(
    ("image", "label", "entry"),
    [
        ("JPEGImages/a.jpg", "labels/a.txt", "JPEGImages"),
        ("imgs/a.jpg", "labels/a.txt", "imgs"),
        ("train/a.jpg", "labels/a.txt", "train"),
        ("train/a.jpg", "train/a.txt", "train"),
        ("train/images/p1/a.jpg", "train/labels/p1/a.txt", "train/images"),
        ("train/images/a.jpg", "train/labels/a.txt", "train"),
        ("images/x/images/a.jpg", "images/x/labels/a.txt", "images/x/images"),
    ],
)
def test_labels_are_found_in_other_layouts(tmp_path, image, label, entry):
    read(make(tmp_path / "set", {image: "", label: BOX}, f"train: {entry}"), 1)


def test_images_without_any_label_file_are_an_error_that_says_where_it_looked(tmp_path):
    path = make(tmp_path / "set", {"images/train/a.jpg": "", "images/train/b.jpg": ""}, "train: images/train")
    with pytest.raises(ValueError, match=r"line 2: train: .*2 images and no label file.*labels/train nor"):
        read_dataset(path)


def test_an_image_without_a_label_file_among_others_is_background(tmp_path):
    files = {k: v for k, v in COCO.items() if k != "labels/train2017/1.txt"}
    path = make(tmp_path / "set", files, "train: images/train2017")
    read(path, 2, "an image without a label file, read as background")


def test_a_keypoint_row_is_its_box(tmp_path):
    text = "0 0.5 0.5 0.4 0.4 0.1 0.1 2 0.9 0.9 1\n"
    settings = "train: images/train2017\nkpt_shape: [2, 3]"
    path = make(tmp_path / "set", COCO | {"labels/train2017/0.txt": text}, settings)
    assert read(path, 3).frames[0].boxes[0].tolist() == pytest.approx([0, 0.5, 0.5, 0.4, 0.4])


@pytest.mark.parametrize("names", ["{'0': AR, '1': MR}", "{0: AR, 1: MR}", '{"0": AR, "1": MR}'])
def test_indices_of_names_may_be_quoted(tmp_path, names):
    path = make(tmp_path / "set", COCO, "train: images/train2017")
    path.write_text(path.read_text().replace("[AR, MR]", names))
    assert read(path, 3).classes == ("AR", "MR")


def test_anchors_in_a_data_yaml(tmp_path):
    path = make(tmp_path / "set", COCO, "x: &place images/train2017\ntrain: *place")
    read(path, 3)


@pytest.mark.parametrize(
    "wrong",
    ["Val: images/train2017", "validation: images/train2017", "Test: x", "image_clases: [a]", "TRAIN: x"],
)
def test_a_key_like_one_that_is_known_is_named(tmp_path, wrong):
    path = make(tmp_path / "set", COCO, f"train: images/train2017\n{wrong}")
    read(path, 3, "an unknown key like one that is known")


def test_val_and_valid_together_are_refused(tmp_path):
    path = make(tmp_path / "set", COCO, "train: images/train2017\nval: images\nvalid: images")
    with pytest.raises(
        ValueError, match="line 4: valid: stands beside val, which means the same; leave one out"
    ):
        read_dataset(path)


def test_what_lies_elsewhere_is_read_where_that_is_allowed(tmp_path):
    make(tmp_path / "far/away/coco", COCO, "train: images/train2017")
    far = tmp_path / "far/away/coco"
    settings = f"path: {far}\ntrain: images/train2017"
    path = make(tmp_path / "near/set", {}, settings)
    with pytest.raises(ValueError, match="write `allow_outside: true`"):
        read_dataset(path)
    path.write_text(path.read_text() + "allow_outside: true\n")
    read(path, 3)
    (tmp_path / "near/linked/images").mkdir(parents=True)
    for i in range(3):
        os.symlink(far / f"images/train2017/{i}.jpg", tmp_path / f"near/linked/images/{i}.jpg")
    os.symlink(far / "labels/train2017", tmp_path / "near/linked/labels")
    path = make(tmp_path / "near/linked", {}, "train: images")
    with pytest.raises(ValueError, match="no readable image"):
        read_dataset(path)
    path.write_text(path.read_text() + "allow_outside: true\n")
    read(path, 3)


@pytest.mark.skipif(os.name == "nt", reason="other limits")
def test_a_path_of_thousands_of_parts_is_refused_at_once(tmp_path):
    path = make(tmp_path / "set", COCO, f"train: {'a/' * 2000}\nval: [{', '.join(['b/' * 2000] * 10)}]")
    with pytest.raises((ValueError, FileNotFoundError)):
        read_dataset(path)


# --- image classes ---


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("file,class\n0.jpg,PLAX\n1.jpg,A4C\nimages/train2017/2.jpg,PLAX\n", ("A4C", "PLAX")),
        ("class,file,by\nPLAX,0,me\nA4C,1,me\nPLAX,2,you\n", ("A4C", "PLAX")),
    ],
)
def test_image_classes_of_a_table(tmp_path, table, names):
    settings = "train: images/train2017\nimage_class: views.csv"
    dataset = read(make(tmp_path / "set", COCO | {"views.csv": table}, settings), 3)
    assert dataset.views == names and [frame.view for frame in dataset.frames] == [1, 0, 1]


def test_a_table_may_name_images_from_the_path(tmp_path):
    make(tmp_path / "coco", COCO, "")
    rows = "./images/train2017/0.jpg,A\nimages/train2017/1.jpg,B\n../coco/images/train2017/2.jpg,A\n"
    settings = "path: ../coco\ntrain: images/train2017\nimage_class: views.csv"
    dataset = read(make(tmp_path / "mine", {"views.csv": f"file,class\n{rows}"}, settings), 3)
    assert [frame.view for frame in dataset.frames] == [0, 1, 0]


def test_image_classes_of_a_folder_in_the_order_that_is_asked_for(tmp_path):
    files = {
        "images/PLAX/a.jpg": "",
        "images/A4C/b.jpg": "",
        "images/odd/c.jpg": "",
        "labels/PLAX/a.txt": BOX,
    }
    settings = "train: images\nimage_class: images/(.*?)/\nimage_classes: [PLAX, A4C]"
    background = ["an image without a label file, read as background"] * 2
    dataset = read(make(tmp_path / "set", files, settings), 1, *background, "no image class")
    assert dataset.views == ("PLAX", "A4C")
    assert {frame.name[7:10]: frame.view for frame in dataset.frames} == {"PLA": 0, "A4C": 1, "odd": -1}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("image,view\n0,PLAX\n", "line 1: expected the columns file and class, got ['image', 'view']"),
        ("file,class\n0,PLAX\n0,A4C\n", "line 3: expected a file and its class, and each file once"),
        ("file,class\n0,PLAX,x\n", "line 2: expected"),
        ("file,class\nz,PLAX\n", "gives no image a class, as for 'images/train2017/0.jpg'"),
        (None, "not found"),
        ('file,class\n"0,PLAX\n', "cannot be read: unexpected end of data"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(tmp_path, table, said):
    files = COCO if table is None else COCO | {"views.csv": table}
    path = make(tmp_path / "set", files, "train: images/train2017\nimage_class: views.csv")
    with pytest.raises(ValueError) as caught:
        read_dataset(path)
    line = str(caught.value)
    assert said in line and "\n" not in line and "data.yaml, line 3: image_class: 'views.csv': " in line


# --- names ---


def test_names_of_classes_and_views_are_not_taken_for_columns(tmp_path):
    files = {f"images/{view}/{p}-v-{i}.jpg": "" for view in ("none", "odd") for p in "abc" for i in "01"}
    files |= {name.replace("images", "labels").replace(".jpg", ".txt"): BOX for name in files}
    path = make(tmp_path / "set", files, "train: images\nimage_class: images/(none)/")
    path.write_text(path.read_text().replace("[AR, MR]", "[frames, patients]"))
    found = read_dataset(path)
    by_view = tables.class_by_view(found)
    assert by_view.columns.tolist() == ["none", "(none)"]
    assert by_view.to_numpy().tolist() == [[6, 6], [0, 0]]
    folds = tables.folds_table(found, 3)
    assert folds["frames"].tolist() == [4] * 3 and folds["patients"].tolist() == [1] * 3
    assert folds["boxes"].to_numpy().tolist() == [[4, 0]] * 3


def test_a_folder_stands_for_its_data_yaml(tmp_path, capsys):
    make(tmp_path / "coco", COCO, "train: images/train2017")
    assert main(["check", str(tmp_path / "coco")]) == 1
    assert "3 frames, 3 boxes" in capsys.readouterr().out
    assert main(["check", str(tmp_path)]) == 2
    assert "data.yaml: no such data.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("console", ["closed", "ascii"])
def test_a_check_needs_no_console_that_has_every_letter(tmp_path, console):
    files = {"images/train/梯度.jpg": "", "labels/train/梯度.txt": "9 0.5 0.5 0.4 0.4\n"}
    make(tmp_path / "set", files, "train: images/train")
    command = [sys.executable, "-m", "gradlib", "check", "set", *(["1>&-"] if console == "closed" else [])]
    environment = os.environ | {"PYTHONIOENCODING": "ascii" if console == "ascii" else "utf-8"}
    ran = subprocess.run(
        " ".join(command), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout == "" if console == "closed" else r"labels/train/\u68af\u5ea6.txt, line 1" in ran.stdout
