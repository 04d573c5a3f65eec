import pytest

from gradlib.checks import check_folder_name
from gradlib.config import BRANCHES, SOLUTIONS, Parameters, Solution, find_solution, register


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


def test_a_mapping_with_a_registered_name_starts_from_that_solution():
    narrow = find_solution({"name": "dual", "width": 0.25})
    assert (narrow.branch, narrow.width) == ("input", 0.25)
    assert find_solution({"name": "detection-only", "width": 0.5}).tasks == ("detection",)
    assert find_solution({"name": "dual", "from": "baseline"}).branch == "neck"


def test_a_registered_name_is_not_taken_twice():
    with pytest.raises(ValueError, match="'baseline' exists already"):
        register(Solution("baseline"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gradnrom", "unknown solution 'gradnrom' .did you mean 'gradnorm'"),
        ({"branch": "p3"}, "give it a 'name'"),
        ({"name": "x", "branhc": "p3"}, "unknown setting 'branhc' .did you mean 'branch'"),
        ({"name": "x", "branch": "p6"}, "branch: unknown 'p6'"),
        ({"name": "x", "balancer": "magic"}, "balancer: unknown 'magic'"),
        ({"name": "x", "weights": [1]}, "1 weights for 2 tasks"),
        ({"name": "x", "weights": [1, -1]}, r"weights\[1\]: expected greater than or equal to 0, got -1"),
        ({"name": "x", "width": 0}, "width: expected greater than 0, got 0"),
        ({"name": "x", "width": float("inf")}, "width: expected a finite number, got inf"),
        ({"name": "x", "width": "0,5"}, "width: expected number, got '0,5'"),
        ({"name": "x", "branch": "input", "balancer": "gradnorm"}, "none is shared"),
        (
            {"name": "x", "balancer": "gradnorm", "options": {"bound": 1}},
            "no option 'bound' .did you mean 'bounds'",
        ),
        ({"name": "x", "options": {"c": 1}}, "fixed has no option 'c'"),
        (
            {"name": "x", "tasks": ["detektion"], "weights": [1]},
            "unknown 'detektion' .did you mean 'detection'",
        ),
    ],
)
def test_what_is_wrong_with_a_solution_is_one_line(spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        find_solution(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        *[("augment", text, False) for text in ("false", "no", "False", "0", 0, False)],
        *[("strict", text, True) for text in ("true", "yes", "on", 1)],
        *[("epochs", given, 12) for given in ("12", 12.0, "12.0")],
        *[("learning_rate", given, 1e-3) for given in ("1e-3", "0.001", 1e-3)],
        *[("fold", given, 0) for given in ("0", 0.0)],
        ("image_size", "64", 64),
    ],
)
def test_a_text_is_taken_for_what_it_means(name, given, value):
    found = getattr(Parameters.from_mapping({name: given, "unrelated": 3}), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("image_size", 100, "expected a multiple of 32, the network's largest stride, got 100; take 96"),
        ("epochs", 0, "expected greater than or equal to 1, got 0"),
        ("epochs", True, "expected number, got True"),
        ("epochs", "1.5", "expected integer, got '1.5'"),
        ("epochs", None, "expected integer, got None"),
        ("batch_size", 10**9, "expected less than or equal to 1000000, got 1000000000"),
        ("learning_rate", -0.001, "expected greater than 0, got -0.001"),
        ("learning_rate", 1e30, "expected less than or equal to 1, got 1e+30"),
        ("learning_rate", float("nan"), "expected a finite number, got nan"),
        ("alpha", "x", "expected number, got 'x'"),
        ("alpha", -2, "expected greater than or equal to 0, got -2"),
        ("alpha", 1e6, "expected less than or equal to 10, got 1000000.0"),
        ("augment", "maybe", "expected boolean, got 'maybe'"),
        ("precision", "16-mixed", "unknown '16-mixed' (did you mean 'bf16-mixed'?)"),
        ("device", "gpu", "unknown 'gpu'"),
        ("split", "patient", "unknown 'patient' (did you mean 'patients'?)"),
        ("folds", 1, "expected greater than or equal to 2, got 1"),
        ("study", 7, "expected string, got 7"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_one_line(name, value, expected):
    with pytest.raises(ValueError) as caught:
        Parameters(**{name: value})
    assert str(caught.value).startswith(f"{name}: {expected}")
    assert "\n" not in str(caught.value)


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
