import pytest

from gradlib.config import BRANCHES, SOLUTIONS, Solution, Training, check_folder_name, find_solution, register


def test_the_registered_solutions_are_the_corners_of_the_plane():
    assert {name: (s.branch, s.balancer) for name, s in SOLUTIONS.items()} == {
        "baseline": ("neck", "fixed"),
        "gradnorm": ("neck", "gradnorm"),
        "dual": ("input", "fixed"),
        "fusion": ("p3", "gradnorm"),
        "detection-only": ("neck", "fixed"),
        "classification-only": ("neck", "fixed"),
        "gradnorm-static": ("neck", "fixed"),
        "conflict-branch": ("neck", "fixed"),
        "random-branch": ("random", "fixed"),
        "gradnorm-reported": ("neck", "gradnorm"),
        "dual-equal": ("input", "fixed"),
        "static-10-1": ("neck", "fixed"),
        "static-3-1": ("neck", "fixed"),
        "static-1-3": ("neck", "fixed"),
        "static-1-10": ("neck", "fixed"),
    }
    reported = SOLUTIONS["gradnorm-reported"]
    assert reported.weights == (1.0, 0.01)
    assert reported.options == {"bounds": [0.0, 4.0], "renormalise": False}
    assert {name: s.width for name, s in SOLUTIONS.items() if s.width != 1} == {"dual-equal": 0.77}


@pytest.mark.parametrize(("a", "b"), [(10, 1), (3, 1), (1, 3), (1, 10)])
def test_the_grid_of_static_weights_has_the_ratio_of_its_name_and_the_sum_of_the_tasks(a, b):
    weights = SOLUTIONS[f"static-{a}-{b}"].weights
    assert weights[0] / weights[1] == pytest.approx(a / b) and sum(weights) == pytest.approx(2)


def test_a_mapping_may_start_from_a_registered_solution():
    late = find_solution({"name": "late", "from": "gradnorm", "branch": "p4", "weights": [1, 2]})
    assert (late.branch, late.balancer, late.weights) == ("p4", "gradnorm", (1, 2))


def test_a_registered_name_is_not_taken_twice():
    with pytest.raises(ValueError, match="'baseline' exists already"):
        register(Solution("baseline"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gradnrom", "unknown solution 'gradnrom' .did you mean 'gradnorm'"),
        ({"branch": "p3"}, "give it a 'name'"),
        ({"name": "x", "branhc": "p3"}, "unknown setting 'branhc' .did you mean 'branch'"),
        ({"name": "x", "branch": "p6"}, "unknown branch 'p6'"),
        ({"name": "x", "balancer": "magic"}, "unknown balancer 'magic'"),
        ({"name": "x", "weights": [1]}, "1 weights for 2 tasks"),
        ({"name": "x", "weights": [1, -1]}, "not negative"),
        ({"name": "x", "width": 0}, "width must be a finite number above 0, got 0"),
        ({"name": "x", "width": float("inf")}, "width must be a finite number above 0, got inf"),
        ({"name": "x", "width": "0,5"}, "width must be a finite number above 0, got '0,5'"),
        ({"name": "x", "branch": "input", "balancer": "gradnorm"}, "none is shared"),
        (
            {"name": "x", "balancer": "gradnorm", "options": {"bound": 1}},
            "no option 'bound' .did you mean 'bounds'",
        ),
        ({"name": "x", "options": {"c": 1}}, "fixed has no option 'c'"),
        ({"name": "x", "tasks": ["detektion"], "weights": [1]}, "unknown task 'detektion'"),
    ],
)
def test_what_is_wrong_with_a_solution_is_one_line(spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        find_solution(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting", [{"image_size": 100}, {"epochs": 0}, {"batch_size": 0}, {"precision": "16-mixed"}]
)
def test_what_is_wrong_with_a_training_names_the_setting(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Training(**setting)


def test_the_axis_of_branches_runs_from_nothing_shared_to_everything():
    assert BRANCHES == ("input", "p1", "p2", "p3", "p4", "p5", "neck")


@pytest.mark.parametrize("name", ["baseline", "gradnorm-alpha=0.5,width=1", "梯度", "a_x", "a..b", "console"])
def test_a_name_may_be_a_folders(name):
    assert check_folder_name(name, "solution") == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "C:x",
            "~",
            "-x",
            ".x",
            "_x",
            "x\n",
            "a b",
            "<b>",
            "x.",
            "CON",
            "com1.txt",
        ),
        *("梯" * 67, None, 3, ["x"]),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match=r"^solution "):
        check_folder_name(name, "solution")
