"""The values that define a run: the registry of solutions, and the parameters of the notebooks.

A *solution* is two choices: where the tasks part (`branch`) and how their losses are balanced
(`balancer`). Nothing else distinguishes one remedy from another, so no solution has code of its own.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from gradlib.checks import (
    Alpha,
    Checked,
    Count,
    ImageSize,
    Known,
    NotNegative,
    Number,
    Positive,
    Rate,
    Seed,
    Share,
    Weights,
    closest,
    is_known,
    shortened,
)

TASKS = ("detection", "classification")
BRANCHES = ("input", "p1", "p2", "p3", "p4", "p5", "neck")
PHANTOMS = ("phantom", "phantom-marked")  # synthetic data; in the second a mark tells the view
RANDOM = "random"  # a branch that the run's seed decides
OWN_BALANCERS = ("fixed", "gradnorm")  # beside `torchjd_methods`
# Arguments without a default in TorchJD: of its authors' experiments on NYUv2 (CAGrad), minimum potential
# delay, for 1 is NashMTL (FairGrad), or neutral (STCH). And those that are the number of tasks.
TORCHJD_DEFAULTS = {"CAGrad": {"c": 0.4}, "FairGrad": {"alpha": 2.0}, "STCH": {"mu": 1.0}}
TORCHJD_BY_TASKS = ("n_tasks", "shape")
# GradNorm's settings that belong to a solution, beside its weights; the others are in `Training`.
GRADNORM_OPTIONS = ("bounds", "initial_losses", "measure_at", "norms", "renormalise")
# Where norms are measured for a solution without `measure_at`. Nothing passes by the cut, and it is free; all
# shared weights take 1.5 times the step and were not told apart (two real folds, four seeds of the phantom).
MEASURE_AT = "cut"


@cache
def torchjd_methods() -> dict[str, str]:
    """The methods of the installed TorchJD that balance T tasks: by name, `aggregation` or `scalarization`.

    Those are its aggregators and scalarizers, without those that have an argument with no default, there or
    in `TORCHJD_DEFAULTS`, and without Mean and Sum, which are fixed weights. A name of both kinds (Random) is
    the scalarizer's. Read from TorchJD's source, for importing it takes seconds.
    """
    methods = {}
    for package in ("aggregation", "scalarization"):
        for path in sorted((Path(find_spec("torchjd").origin).parent / package).glob("_*.py")):
            for one in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(one, ast.ClassDef) and _balances(one):
                    methods[one.name] = package
    return methods


def _balances(one: ast.ClassDef) -> bool:
    bases = [base.id for base in one.bases if isinstance(base, ast.Name)]
    if not any(base.endswith(("Aggregator", "Scalarizer")) for base in bases) or one.name in ("Mean", "Sum"):
        return False
    given = {"self", *TORCHJD_BY_TASKS, *TORCHJD_DEFAULTS.get(one.name, ())}
    made = [part.args for part in one.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    return all(a.arg in given for own in made for a in own.args[: len(own.args) - len(own.defaults)])


def _known_balancer(value: str) -> str:
    return value if value in OWN_BALANCERS else is_known(value, (*OWN_BALANCERS, *torchjd_methods()))


@dataclass(frozen=True)
class Solution(Checked):
    """Where the tasks part and how their losses are balanced.

    branch: `input` (two independent backbones), `p1` ... `p5` (share that many backbone stages) or
        `neck` (share the backbone and the top-down neck). Each task has its own copy of the rest.
        `random`: one of `p1` ... `p5`, by the run's fold and seed: the control of a branch by conflict.
    balancer: `fixed`, `gradnorm`, or a method of the installed TorchJD by its name there (PCGrad, FAMO, ...):
        see `torchjd_methods`.
    tasks: one task makes a single-task specialist.
    weights: the (starting) loss weight of each task.
    options: of the balancer. GradNorm: bounds (lowest and highest weight), renormalise (as published, or
        not), initial_losses (steps to average, or values), measure_at (where the gradients' norms are
        measured: `cut`, the tensors that leave the shared part, as without it; `shared`, all shared weights;
        `last`, the last shared convolution, which gradients may pass by; or a shared stage or convolution by
        name), norms (of each `batch`; or `unbiased`, without noise, which the cut does not allow). TorchJD:
        the arguments of its class.
    weights_from: a solution of the same study; its mean weights (same fold and seed) become this one's.
    branch_from: a solution of the same study; its conflicts (same fold and seed) decide this one's branch.
    width: channels of the whole network in units of the size's own, to the nearest multiple of 8.
    """

    name: str
    branch: Known(*BRANCHES, RANDOM) = "neck"
    balancer: Annotated[str, AfterValidator(_known_balancer)] = "fixed"
    tasks: Annotated[tuple[Known(*TASKS), ...], Field(min_length=1)] = TASKS
    weights: Weights = (1.0, 1.0)
    options: dict = field(default_factory=dict)
    weights_from: str = ""
    branch_from: str = ""
    width: Annotated[Number, Field(gt=0, le=4)] = 1.0
    description: str = ""

    def __post_init__(self):
        try:
            super().__post_init__()
            self._check()
        except ValueError as error:
            raise ValueError(f"solution {shortened(self.name)}: {error}") from None

    def _check(self) -> None:
        if len(self.weights) != len(self.tasks):
            raise ValueError(f"{len(self.weights)} weights for {len(self.tasks)} tasks; give one each")
        if self.balancer != "fixed" and (self.branch == "input" or len(self.tasks) < 2):
            raise ValueError(
                f"{self.balancer} balances gradients in shared layers, and here none is shared; "
                "take balancer 'fixed', or another branch and two tasks"
            )
        unbiased = self.options.get("norms") == "unbiased"
        if unbiased and self.options.get("measure_at", MEASURE_AT) == "cut":
            text = "norms 'unbiased' needs gradients that frames have in common"
            raise ValueError(f"{text}, and measure_at 'cut' has none; take 'shared' or a layer")
        known = {"fixed": (), "gradnorm": GRADNORM_OPTIONS}.get(self.balancer, self.options)
        for option in self.options:
            if option not in known:
                raise ValueError(f"{self.balancer} has no option {option!r}{closest(option, known)}")

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The solutions that must have run before this one."""
        return tuple(name for name in (self.weights_from, self.branch_from) if name)

    @property
    def unresolved_fields(self) -> tuple[str, ...]:
        """The fields that only a run's fold and seed decide: see `runs.resolve`."""
        branch_is_open = self.branch_from or self.branch == RANDOM
        return (("weights",) if self.weights_from else ()) + (("branch",) if branch_is_open else ())


SOLUTIONS: dict[str, Solution] = {}


def register(new: Solution) -> Solution:
    """Make a solution known by its name, so that notebooks and study files can ask for it."""
    if new.name in SOLUTIONS:
        raise ValueError(f"solution {new.name!r} exists already; choose another name")
    SOLUTIONS[new.name] = new
    return new


def in_registry_order(names: Iterable[str]) -> list[str]:
    """Names of solutions, those in the registry first and in its order, then the others by name."""
    places = {name: place for place, name in enumerate(SOLUTIONS)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def find_solution(spec: str | Mapping | Solution) -> Solution:
    """The solution that `spec` describes: a registered name, or a mapping of `Solution`'s fields.

    A mapping may start from a registered one: `{"name": "late", "from": "gradnorm", "branch": "p4"}`. One
    that has a registered name starts from that.
    """
    if isinstance(spec, Solution):
        return spec
    if not isinstance(spec, Mapping):
        if not isinstance(spec, str) or spec not in SOLUTIONS:
            raise ValueError(f"unknown solution {spec!r}{closest(spec, SOLUTIONS)}")
        return SOLUTIONS[spec]
    values = dict(spec)
    if not values.get("name"):
        raise ValueError(f"solution {values!r}: give it a 'name'")
    name = values["name"]
    base = values.pop("from", name if name in list(SOLUTIONS) else None)
    if base is not None:
        values = {**asdict(find_solution(base)), "description": "", **values}
    known = [one.name for one in fields(Solution)]
    for key in values:
        if key not in known:
            raise ValueError(f"solution {values['name']!r}: unknown setting {key!r}{closest(key, known)}")
    return Solution(**values)


for _solution in (
    Solution("baseline", description="shared up to the neck, equal weights"),
    Solution("gradnorm", balancer="gradnorm", description="shared up to the neck, GradNorm"),
    Solution("dual", branch="input", description="two independent backbones"),
    Solution("fusion", branch="p3", balancer="gradnorm", description="parted after P3, GradNorm"),
    Solution("detection-only", tasks=("detection",), weights=(1.0,), description="detection specialist"),
    Solution("classification-only", tasks=("classification",), weights=(1.0,), description="view specialist"),
    Solution(
        "gradnorm-static",
        weights_from="gradnorm",
        description="fixed weights: the means of GradNorm's in the same study",
    ),
    Solution(
        "conflict-branch",
        branch_from="baseline",
        description="parted where the baseline's gradients conflict most, equal weights",
    ),
    Solution(
        "random-branch",
        branch=RANDOM,
        description="parted at a random stage, equal weights: the control of conflict-branch",
    ),
    Solution(
        "gradnorm-reported",
        balancer="gradnorm",
        weights=(1.0, 0.01),
        options={"bounds": [0.0, 4.0], "renormalise": False},
        description="the reference report's start weights and bounds, weights not renormalised",
    ),
    Solution(
        "dual-equal",
        branch="input",
        width=0.77,  # 0.99 of the baseline's parameters; of size s 1.00, of the others 0.99
        description="two independent backbones, narrowed to the baseline's number of parameters",
    ),
    # With `baseline` a grid of static weights, which matches most methods where it is searched (Xin et al.
    # 2022). They sum to 2, as GradNorm's do: their scale matters only where gradients are clipped.
    *(
        Solution(
            f"static-{a}-{b}",
            weights=(2 * a / (a + b), 2 * b / (a + b)),
            description=f"shared up to the neck, fixed weights: detection to classification {a}:{b}",
        )
        for a, b in ((10, 1), (3, 1), (1, 3), (1, 10))
    ),
):
    register(_solution)


@dataclass(frozen=True)
class Training(Checked):
    """The settings of one training run.

    The defaults did best of the values that were tried on real frames of unseen patients: two of five
    patient folds of 1,140 frames, size n, 224 px, from YOLOv5's COCO checkpoint, GradNorm, 20 epochs. A
    run or two a choice; another seed alone moves a fold's mAP@0.5 by up to 0.08, so most are not told apart.
    """

    size: Known(*"nsmlx") = "n"  # YOLOv5 size: n, s, m, l or x
    image_size: ImageSize = 224  # pixels, a multiple of 32
    epochs: Positive = 30
    batch_size: Positive = 16  # 8 and 32 were not told apart from it
    # AdamW: 3e-4, 1e-3 and 3e-3 gave mAP@0.5 0.28, 0.30 and 0.33 (repeated on one fold, 1e-3 and 3e-3 were
    # alike), 8e-3 less again; YOLOv5's SGD 0.32, with less of the views.
    learning_rate: Rate = 3e-3  # detector and shared part
    learning_rate_classification: Rate = 3e-3  # of classification's own parameters
    learning_rate_final: Rate = 2e-5  # end of the cosine, the same for all
    warmup_epochs: NotNegative = 1.0  # linear from zero: AdamW's second moments are empty at first
    weight_decay: Share = 0.05  # on convolution weights only, as YOLOv5 does
    # Each view weighs its frequency to the power of minus this, for views are uneven and judged evenly.
    # No label smoothing: it keeps the view's loss high, which GradNorm takes for a slow task, and
    # detection's weight fell to 0.1-0.2.
    view_balance: Share = 0.5
    ema_decay: Annotated[NotNegative, Field(lt=1)] = 0.998  # of the weights; ramped up over the first steps
    # Rotation, scale, shift, gain, speckle; never flips, hue or mosaic. Twice as strong: mAP@0.5 0.33
    # against 0.30 with a learning rate of 1e-3, but 0.30 against 0.33 with 3e-3. Mixing two frames (mixup)
    # in half of the batches cost 0.04 to 0.06.
    augment: bool = True
    alpha: Alpha = 1.5  # GradNorm's asymmetry; the paper's choice for NYUv2; 0.5 was not told apart from it
    weights_learning_rate: Rate = 0.025  # GradNorm's own; the paper's value
    probe_every: Count = 80  # steps between gradient probes; 0 turns them off
    # Batches that a probe adds up. For as many probed batches in all, four at a time gave the neck's rho half
    # the interval of one at a time (+-0.05 and +-0.10 over 200 batches of 16 real frames at 128 px).
    probe_batches: Positive = 4
    seed: Seed = 0
    device: Known("auto", "cpu", "cuda", "mps", "xpu") = "auto"  # "auto": an accelerator when there is one
    # Lightning Fabric's names. bf16 takes half the time where the processor has it; float32 is the default
    # because every processor has it; "auto" takes what the device has. float16 would need loss scaling, and
    # the norms with it.
    precision: Known("32-true", "bf16-mixed", "auto") = "32-true"
    # By torch.compile: two minutes at first; steps on an H100, beside 15 other runs, took as long as before.
    compile: bool = False


@dataclass(frozen=True)
class Parameters(Training):
    """The parameters of the notebooks: a training, of what, on what, and where it is kept."""

    solution: str | dict = "baseline"  # as `find_solution` takes it
    data: str = "phantom"  # or another of `PHANTOMS`, or the path of a data.yaml, from the project folder
    strict: bool = False  # refuse a data set of which something would be skipped or guessed
    split: Known("patients", "published") = "patients"
    fold: Count = 0
    folds: Annotated[Positive, Field(ge=2)] = 5
    max_frames_per_patient: Count = 0  # of the training part; 0: all
    pretrained: str = ""  # a YOLOv5 checkpoint
    study: str = "scratch"  # a folder in `runs`
    runs: str = "runs"  # a folder, from the project's
    interactive: bool = False
    language: Known("en", "zh-Hant") = "en"
    reference: str = "gradnorm"  # what differences are taken against
    other: str = "dual"  # what is compared with it
    examples: Count = 6  # frames shown
