"""Two COCO results files: mAP as COCO has it, and intervals over patients."""

import json

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from gradlib.__main__ import main

PATIENTS, IMAGES = 12, 60


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Truth, two results (the second finds more), patients: files in the current folder."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    images = [{"id": 100 + i, "file_name": f"{i}.png", "width": 400, "height": 300} for i in range(IMAGES)]
    truth, results = [], {"one": [], "two": []}
    for image in images:
        for _ in range(2):
            x, y, w, h = (float(v) for v in generator.uniform((0, 0, 30, 30), (200, 200, 90, 90)))
            box = {
                "image_id": image["id"],
                "category_id": int(generator.choice([3, 7])),
                "bbox": [x, y, w, h],
            }
            truth.append({**box, "id": len(truth) + 1, "area": w * h, "iscrowd": 0})
            for name, skill in (("one", 0.5), ("two", 0.9)):
                shift = 0 if generator.uniform() < skill else 70
                moved = [x + shift + generator.normal(0, 3), y, w, h]
                results[name].append({**box, "bbox": moved, "score": float(generator.uniform(0.1, 1))})
    known = {
        "images": images,
        "annotations": truth,
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    }
    for name, content in {"truth": known, **results}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    lines = [f"{image['file_name']},{i % PATIENTS}" for i, image in enumerate(images)]
    (tmp_path / "patients.csv").write_text("\n".join(["image,patient", *lines]))
    return ["compare", "truth.json", "one.json", "two.json", "--patients", "patients.csv"]


def test_map_is_cocos_and_the_difference_has_an_interval_and_a_verdict(files, capsys):
    assert main(files) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    for name in ("one", "two"):
        truth = COCO("truth.json")
        evaluation = COCOeval_faster(
            truth, truth.loadRes(f"{name}.json"), "bbox", print_function=lambda *_: None
        )
        evaluation.run()
        for label, place in (("mAP@0.5:0.95", 0), ("mAP@0.5", 1)):
            assert float(said[f"{label} of {name}"].split()[0]) == pytest.approx(
                evaluation.stats[place], abs=6e-4
            )
    value, low, high, verdict = said["mAP@0.5 of second minus first"].replace("[", "").split(" ")
    assert 0 < float(low.strip(",")) < float(value) < float(high.strip("]:")) and verdict == "better"


def test_the_same_predictions_are_equivalent(files, capsys):
    assert main([*files[:2], "one.json", "one.json", *files[4:]]) == 0
    said = capsys.readouterr().out
    assert said.count("+0.000 [+0.000, +0.000]: equivalent") == 2
    assert said.endswith("margins 0.03 and 0.015\n")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("patients.csv", "59.png,11", "58.png,11", "image '59.png' (id 159) has no patient"),
        ("patients.csv", "image,patient", "image,who", "column 'patient' is missing"),
        ("two.json", '"image_id": 100,', '"image_id": 1,', "two.json: image 1, category"),
        ("two.json", '"score": 0', '"sore": 0', "two.json: entry 0: score: missing"),
        ("truth.json", '"iscrowd": 0', '"iscrowd": 1', "truth.json: annotation 0: iscrowd is not supported"),
    ],
)
def test_a_mistake_is_one_line(files, capsys, tmp_path, file, old, new, said):
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(text.replace(old, new))
    assert main(files) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
