"""What a training epoch of detection costs here, and in YOLOv5's own code, on the same cores.

    python benchmarks/epoch.py [--yolov5 FOLDER] [--data phantom] [--image-size 224] [--cores 1] [--rounds 3]

FOLDER is a checkout of YOLOv5 with what it requires; without it, only this code is timed. Both train size n
from nothing on the same frames and boxes, 16 a batch, images in memory, turned by 8 degrees, without flip,
hue or mosaic. Prints images a second and core. YOLOv5's epoch is the difference of a run of three and a run
of one, which leaves out its start and its last validation; ours is a later epoch, validation left out.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
import yaml

from gradlib import MultiTaskYOLO, Trainer, Training, read_dataset
from gradlib.config import find_solution
from gradlib.data.dataset import Dataset

BATCH = 16
# YOLOv5's published values for training from nothing, without the augmentation that this task does not allow.
HYPERPARAMETERS = {
    "lr0": 0.01, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005, "warmup_epochs": 0.0,
    "warmup_momentum": 0.8, "warmup_bias_lr": 0.1, "box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0,
    "obj_pw": 1.0, "iou_t": 0.2, "anchor_t": 4.0, "fl_gamma": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.2,
    "degrees": 8.0, "translate": 0.08, "scale": 0.15, "shear": 0.0, "perspective": 0.0, "flipud": 0.0,
    "fliplr": 0.0, "mosaic": 0.0, "mixup": 0.0, "copy_paste": 0.0,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yolov5", type=Path)
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # of what is started, too
    torch.set_num_threads(options.cores)
    dataset = read_dataset(options.data, image_size=options.image_size)
    parts = dataset.split("patients", 0, 5)
    rates = {"gradlib": []} | ({"YOLOv5": []} if options.yolov5 else {})
    with tempfile.TemporaryDirectory() as folder:
        data = written(dataset, parts, Path(folder)) if options.yolov5 else None
        for _ in range(options.rounds):
            rates["gradlib"].append(ours(dataset, parts, options.image_size))
            if data:
                seconds = [official(options, data, epochs) for epochs in (1, 3)]
                rates["YOLOv5"].append(len(parts["train"]) * 2 / (seconds[1] - seconds[0]))
    for name, own in rates.items():
        each = ", ".join(f"{rate / options.cores:.1f}" for rate in own)
        print(f"{name:8} {statistics.median(own) / options.cores:6.1f} images a second and core ({each})")
    if data:
        ratios = [a / b for a, b in zip(rates["gradlib"], rates["YOLOv5"], strict=True)]
        print(f"ratio    {statistics.median(ratios):6.2f}")


def ours(dataset: Dataset, parts: dict, size: int) -> float:
    """Images a second in the second epoch; the first warms up."""
    solution, outputs = find_solution("detection-only"), (len(dataset.classes), len(dataset.views))
    sets = {part: dataset.frame_set(frames, size) for part, frames in parts.items()}
    training = Training(image_size=size, batch_size=BATCH, epochs=2, probe_every=0, device="cpu")
    network = MultiTaskYOLO("n", *outputs, solution.tasks, solution.branch)
    trainer = Trainer(network, solution, training, sets["train"], sets["valid"], dataset.classes)
    half, steps = trainer.steps // 2, trainer.iter_steps()
    for _ in islice(steps, half + 1):  # and the validation after it
        pass
    started = time.perf_counter()
    for _ in islice(steps, half):
        pass
    return half * BATCH / (time.perf_counter() - started)


def written(dataset: Dataset, parts: dict, folder: Path) -> Path:
    """The parts as YOLOv5 reads them: rows of boxes alone, for it would read a one-hot row as a polygon."""
    for part, frames in parts.items():
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for frame in frames:
            shutil.copy(frame.image, folder / part / "images" / frame.image.name)
            rows = [f"{int(label)} {' '.join(map(str, box))}\n" for label, *box in frame.boxes.tolist()]
            (folder / part / "labels" / f"{frame.image.stem}.txt").write_text("".join(rows))
    (folder / "hyp.yaml").write_text(yaml.safe_dump(HYPERPARAMETERS))
    paths = {"path": str(folder), "train": "train/images", "val": "valid/images"}
    (folder / "data.yaml").write_text(yaml.safe_dump({**paths, "names": list(dataset.classes)}))
    return folder / "data.yaml"


def official(options: argparse.Namespace, data: Path, epochs: int) -> float:
    """Seconds of YOLOv5's train.py."""
    values = {"img": options.image_size, "batch-size": BATCH, "epochs": epochs, "data": data, "weights": ""}
    values |= {"cfg": "yolov5n.yaml", "hyp": data.with_name("hyp.yaml"), "device": "cpu", "workers": 0}
    values |= {"cache": "ram", "project": data.parent / "runs", "name": f"{epochs}-{time.monotonic_ns()}"}
    flags = ["--noval", "--nosave", "--noplots", "--noautoanchor"]
    named = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "train.py", *named, *flags],
        cwd=options.yolov5,
        env={**os.environ, "OMP_NUM_THREADS": str(options.cores), "WANDB_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
