import pytest
import torch

from gradlib.config import BRANCHES, SOLUTIONS, TASKS
from gradlib.model.yolo import ANCHORS, SIZES, MultiTaskYOLO, decode, multiply_adds

# Trainable parameters of the published networks, for 80 classes (COCO) and for 4.
PUBLISHED = {
    "n": (1872157, 1769329),
    "s": (7235389, 7030417),
    "m": (21190557, 20883441),
    "l": (46563709, 46154449),
    "x": (86749405, 86238001),
}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_published_ones(size):
    with torch.device("meta"):
        counts = [parameters(MultiTaskYOLO(size, k, 0, ("detection",), "neck")) for k in (80, 4)]
    assert tuple(counts) == PUBLISHED[size]


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_parameter_is_shared_or_one_tasks_own(branch):
    model = MultiTaskYOLO("n", 4, 3, TASKS, branch)
    groups = [list(model.shared_parameters()), *(list(model.task_parameters(t)) for t in TASKS)]
    ids = [id(p) for group in groups for p in group]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert bool(groups[0]) == (branch != "input")


@pytest.mark.parametrize("branch", BRANCHES)
def test_only_what_is_shared_varies_with_the_branch(branch):
    model = MultiTaskYOLO("n", 4, 3, TASKS, branch).eval()
    alone = [MultiTaskYOLO("n", 4, 3, (task,), branch) for task in TASKS]
    common = sum(p.numel() for p in model.shared_parameters())
    assert parameters(model) == sum(map(parameters, alone)) - common
    outputs = model(torch.zeros(2, 3, 64, 96))
    assert [tuple(o.shape) for o in outputs["detection"]] == [
        (2, 3, 8, 12, 9),
        (2, 3, 4, 6, 9),
        (2, 3, 2, 3, 9),
    ]
    assert outputs["classification"].shape == (2, 3)


def test_a_shared_network_costs_less_than_two():
    costs = [multiply_adds(MultiTaskYOLO("n", 4, 3, TASKS, branch), 64) for branch in BRANCHES]
    assert costs == sorted(costs, reverse=True)
    # One 6x6 stride 2 convolution of the image, by hand: 32 * 32 places * 16 * 3 * 36.
    stem = MultiTaskYOLO("n", 4, 3, TASKS, "p1").shared["p1"]
    assert multiply_adds(stem["0"], 64) == 32 * 32 * 16 * 3 * 36


@pytest.mark.parametrize("size", SIZES)
def test_two_narrow_networks_have_as_many_parameters_as_the_shared_one(size):
    with torch.device("meta"):
        shared, apart = (
            MultiTaskYOLO(size, 4, 3, TASKS, solution.branch, solution.width)
            for solution in (SOLUTIONS["baseline"], SOLUTIONS["dual-equal"])
        )
    assert parameters(apart) == pytest.approx(parameters(shared), rel=0.03)
    assert not list(apart.shared_parameters())


@pytest.mark.parametrize("width", [0.1, 0.65, 0.77, 1.3])  # each level is rounded by itself
@pytest.mark.parametrize("branch", BRANCHES)
def test_every_layer_fits_the_next_at_every_width(width, branch):
    outputs = MultiTaskYOLO("n", 4, 3, TASKS, branch, width).eval()(torch.zeros(1, 3, 64, 64))
    assert outputs["detection"][0].shape == (1, 3, 8, 8, 9) and outputs["classification"].shape == (1, 3)


def test_a_width_multiplies_channels_to_multiples_of_eight():
    # Size n has 16, 32, 64, 128 and 256 channels: times 0.77 12.3, 24.6, 49.3, 98.6, 197.1.
    stages = MultiTaskYOLO("n", 4, 3, TASKS, "neck", 0.77).shared
    convolutions = (
        stages["p1"]["0"],
        stages["p2"]["1"],
        stages["p3"]["3"],
        stages["p4"]["5"],
        stages["p5"]["7"],
    )
    assert [layer.conv.out_channels for layer in convolutions] == [16, 24, 48, 96, 200]


def test_the_shared_weight_is_the_last_stages_last_convolution():
    model = MultiTaskYOLO("n", 4, 3, TASKS, "p5")
    assert model.shared_weight() is model.shared["p5"]["9"].cv2.conv.weight
    model = MultiTaskYOLO("n", 4, 3, TASKS, "neck")
    assert model.shared_weight() is model.shared["neck"]["17"].cv3.conv.weight


@pytest.mark.parametrize(("tasks", "branch"), [(TASKS, "input"), (("detection",), "neck")])
def test_where_nothing_is_shared_there_is_no_shared_weight(tasks, branch):
    with pytest.raises(ValueError, match="shares no layer"):
        MultiTaskYOLO("n", 4, 3, tasks, branch).shared_weight()


def test_decoding_by_hand():
    raw = [torch.zeros(1, 3, 2, 2, 6), torch.zeros(1, 3, 1, 1, 6), torch.zeros(1, 3, 1, 1, 6)]
    boxes = decode(raw, torch.tensor(ANCHORS, dtype=torch.float32))
    assert boxes.shape == (1, 3 * 4 + 3 + 3, 6)
    # sigmoid(0) = 0.5: the centre lies in the middle of the cell, the size is the anchor's own.
    assert boxes[0, 0].tolist() == pytest.approx([4, 4, 10, 13, 0.5, 0.5])
    assert boxes[0, 3].tolist() == pytest.approx([12, 12, 10, 13, 0.5, 0.5])  # second row, second column
    assert boxes[0, -1].tolist() == pytest.approx([16, 16, 373, 326, 0.5, 0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("q", 4, 3, TASKS, "neck"), "unknown size 'q'"),
        (("n", 4, 3, TASKS, "p9"), "unknown branch 'p9'"),
        (
            ("n", 4, 1, TASKS, "neck"),
            "and the data have 1; take solution=detection-only, or write `image_class` in data.yaml$",
        ),
        (
            ("n", 0, 3, TASKS, "neck"),
            "a class at least, and the data have 0; take solution=classification-only$",
        ),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskYOLO(*arguments)
