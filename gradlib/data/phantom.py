"""A synthetic colour-Doppler data set (the phantom), so that all runs without patients' data.

Who has which leak, seen from where, and how the set lies on disk. What a frame looks like: `phantom_frames`.
"""

import hashlib
import json
import os
import tempfile
from collections import namedtuple
from math import pi, sin
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from gradlib.data import phantom_frames

CLASSES = ("AR", "MR", "PR", "TR")
VIEWS = ("A4C", "PSAX", "PLAX")

# Every public constant, of `phantom_frames` too, is part of the default folder's name (see `ensure`).
VERSION = 1  # raise it when the drawing changes
JET_THRESHOLD = 0.20  # a jet below this share of its peak is not there: a frame without a jet
HEALTHY = 0.05  # share of videos without any leak
# The ratio in which videos are dealt. As in the real set a class is seen from some views more than from
# others; what is rare there is not so rare here, for a class of few boxes made most of the spread in mAP.
JETS = {"AR PLAX": 24, "AR PSAX": 5, "MR PSAX": 10, "MR PLAX": 7, "MR A4C": 12,
        "PR PSAX": 22, "TR PSAX": 17, "TR A4C": 10, "TR PLAX": 1}  # fmt: skip

_MITRAL_LEVEL = 0.6  # share of mitral leaks in the short axis that are seen at the mitral level
_PARTS = ("train", "valid", "test")
_DATA_YAML = """train: train/images\nval: valid/images\ntest: test/images\nnc: 4
names: [AR, MR, PR, TR]\nimage_classes: [A4C, PSAX, PLAX]\npatient: '^[^-]+'\nvideo: '^.*(?=-)'
"""
# kind: class of the leak or None; time: 0-1 through this half of the heart beat; jet: strength, 0-1
_Spec = namedtuple("_Spec", "patient video stem part kind view window systole time jet")


def write(folder, *, patients=120, videos=2, frames=4, size=(215, 160), seed=0, marked=False, progress=False):
    """Write a phantom of `patients` * `videos` * `frames` frames; return the path of its data.yaml.

    `videos` and `frames` are means, uneven between patients; the total is exact. `size` is (width,
    height) in pixels. The same arguments give the same bytes. The folder appears whole or not at
    all; two processes may write it at once. The parts (68, 12, 20 %) leak on purpose as the real
    set's do: frames of one video lie in all three, so a score on them measures memory. With `marked`,
    a white square in a corner tells the view: the control in which the tasks need nothing of each other.
    Raises ValueError for too few frames or pixels, FileExistsError where `folder` holds anything
    but this very phantom; nothing in it is touched.
    """
    folder, size = Path(folder), tuple(size)
    if min(patients, videos, frames) < 1 or patients * videos * frames < 9 or min(size) < 64:
        found = f"{patients} patients x {videos} videos x {frames} frames of {size} pixels"
        raise ValueError(f"phantom of {found}: give 9 frames or more, 64 pixels a side or more")
    about = _about(patients=patients, videos=videos, frames=frames, size=size, seed=seed, marked=marked)
    if not _is_there(folder, about):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            made = Path(beside) / "phantom"
            _fill(made, _plan(patients, videos, frames, seed), size, seed, marked, progress)
            (made / "data.yaml").write_bytes(_DATA_YAML.encode())
            (made / "phantom.json").write_bytes(about.encode())
            try:
                os.replace(made, folder)
            except OSError:
                if not _is_there(folder, about):  # else another process was faster
                    raise
    return folder / "data.yaml"


def ensure(root, marked=False):
    """Return the data.yaml of a phantom of default size under `root`, written on first use (seconds).

    The folder is named by a hash of all parameters and public constants: a turned
    constant makes another phantom, never a mixture.
    """
    arguments = {k: v for k, v in write.__kwdefaults__.items() if k != "progress"} | {"marked": marked}
    digest = hashlib.sha256(_about(**arguments).encode()).hexdigest()
    return write(Path(root) / f"phantom-{digest[:8]}", marked=marked, progress=True)


def _about(**arguments):
    """All that a phantom depends on, as JSON: the mark by which a folder is known as ours."""
    constants = {
        k: v
        for k, v in {**vars(phantom_frames), **globals()}.items()
        if k.isupper() and not k.startswith("_")
    }
    return json.dumps({"phantom": arguments, "constants": constants}, indent=1)


def _is_there(folder, about):
    """Whether `folder` is this phantom; False where it is free, an error where it is taken."""
    mark = folder / "phantom.json"
    if mark.is_file() and mark.read_bytes() == about.encode():
        return True
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        what = "a phantom of other parameters" if mark.is_file() else "something that is no phantom"
        raise FileExistsError(f"{folder} holds {what}: name another folder, or remove it yourself")
    return False


def _deal(count, weights):
    """`count` indices into `weights`, in order and in their ratio."""
    return np.searchsorted(np.cumsum(weights) / np.sum(weights), (np.arange(count) + 0.5) / count)


def _plan(patients, videos, frames, seed):
    """Who has which leak, seen from where, in which frames: a list of _Spec; draws nothing."""
    rng, total = np.random.default_rng([seed, 0]), patients * videos
    owners = np.r_[:patients, _deal(total - patients, rng.lognormal(0, 0.5, patients))]
    counts = np.r_[:total, _deal(total * (frames - 1), rng.lognormal(0, 0.25, total))]
    # Sorted by class, then loosened: a patient has one or two leaks, seen from several windows.
    order = np.argsort(np.linspace(0, 1, total) + rng.normal(0, 0.2, total))
    cells = np.array(list(JETS))[_deal(total, list(JETS.values()))][order]
    owners = rng.permutation(patients)[np.sort(owners)].tolist()
    parts = rng.permutation(np.array(_PARTS)[_deal(total * frames, (68, 12, 20))]).tolist()
    specs = []
    for video, (patient, count) in enumerate(zip(owners, np.bincount(counts), strict=True)):
        kind, view = cells[video].split()
        kind = None if rng.random() < HEALTHY else kind
        level = "mitral" if kind in (None, "MR") and rng.random() < _MITRAL_LEVEL else "aortic"
        window = f"PSAX {level}" if view == "PSAX" else view
        name = hashlib.sha256(f"{seed} {patient}".encode()).hexdigest()[:12]
        name += "-unnamed" if patient % 5 else "-Mmode+2D+Doppler_Echo_color"
        numbers = np.cumsum(rng.integers(1, 9, count))
        for number, time in zip(numbers, np.sort(rng.random(count)).tolist(), strict=True):
            jet = sin(pi * time) if kind else 0.0  # grows and fades, and is gone between beats
            jet *= jet > JET_THRESHOLD
            systole = (jet > 0 if kind else time < 0.5) == (kind in ("MR", "TR"))
            what = kind, view, window, systole, time, jet
            stem = f"{name}_{video + 1}_1.mp4-{number}"
            specs.append(_Spec(patient, video, stem, parts[len(specs)], *what))
    return specs


def _fill(folder, specs, size, seed, marked, progress):
    """Draw every frame and write part/images and part/labels."""
    for part in _PARTS:
        for what in ("images", "labels"):
            (folder / part / what).mkdir(parents=True)
    video = None
    for spec in tqdm(specs, desc="phantom", unit="frame", disable=not progress):
        if video is None or video.number != spec.video:
            video = phantom_frames.Video(spec, size, seed)
        pixels, box = video.frame(spec)
        if marked:
            _mark(pixels, VIEWS.index(spec.view))
        image = folder / spec.part / "images" / f"{spec.stem}.png"
        Image.fromarray(pixels).save(image, compress_level=1)
        # The real set's fashion: class and 4 corners, an empty line, the one-hot view, no newline.
        row = "\n" + " ".join(str(int(spec.view == view)) for view in VIEWS)
        if box is not None:
            x0, y0, x1, y1 = (f"{edge:.6f}" for edge in box)
            row = f"{CLASSES.index(spec.kind)} {x0} {y0} {x1} {y0} {x1} {y1} {x0} {y1}\n{row}"
        (folder / spec.part / "labels" / f"{spec.stem}.txt").write_bytes(row.encode())


def _mark(pixels, view):
    """Draw the white square that tells the view: top left, top right, bottom left."""
    (height, width, _), (row, column) = pixels.shape, divmod(view, 2)
    side = height // 10
    y, x = row * (height - side), column * (width - side)
    pixels[y : y + side, x : x + side] = 255
