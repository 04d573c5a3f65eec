"""Keys of a study file with values of every kind: read, or refused in one line that begins with the file."""

import functools
import os
import random

import papermill
import yaml

from gradlib.checks import field_types
from gradlib.config import Parameters
from gradlib.study.spec import read_spec
from gradlib.study.study_file import FIELDS, Keys, Search

ODD = [None, True, 0, -1, 3, 1e30, 0.5, "", "x", "p3", "none", "gradnorm", [], [[]], [None], [1, 1], ["a"]]
ODD += [[["a"]], [[1, 1], [1, 2]], [["p3"]], {}, {"a": 1}, {"low": 0}, {"low": 0, "high": 1}, [{"a": []}]]
ODD += [{"low": [], "high": {}}, {"low": "a", "high": "b", "step": "c", "log": 1}, [0.5, "0.5"], [True, "no"]]
KEYS = [*{*Keys.model_fields, *Search.model_fields, *FIELDS, *field_types(Parameters), "from"}]
PYTHONS = ("object is not", "unhashable", "argument", "pydantic", "Input should", "not supported", "literal")


def placed(key: str, value: object) -> list[dict]:
    """Study files with this value at the key, wherever the key may stand."""
    entry, space = {"name": "one", "from": "gradnorm"}, {"alpha": [0.5, 1.0]}
    entries = [{**entry, key: value}, {"name": "one", key: value}, {key: value}]
    entries += [{**entry, part: {key: value}} for part in ("parameters", "grid")]
    searches = [{"space": {key: value}}, {"space": space, key: value}]
    return [
        {"solutions": ["baseline"], key: value},
        *({"solutions": [entry]} for entry in entries),
        *({"solutions": ["gradnorm"], part: {key: value}} for part in ("parameters", "grid")),
        *({"search": {"solution": "gradnorm", **search}} for search in searches),
    ]


def test_a_value_of_any_kind_is_read_or_refused_in_one_line(project, monkeypatch):
    monkeypatch.setattr(papermill, "inspect_notebook", functools.cache(papermill.inspect_notebook))
    contents = [content for key in sorted(KEYS) for value in ODD for content in placed(key, value)]
    if "GRADLIB_FUZZ_MINUTES" not in os.environ:
        contents = random.Random(0).sample(contents, 600)
    path, refused = project / "notebooks/demo.yaml", 0
    for content in contents:
        path.write_text(yaml.safe_dump(content))
        try:
            read_spec("notebooks/demo.yaml")
        except (ValueError, FileNotFoundError) as error:
            line, refused = str(error), refused + 1
            assert line.startswith("notebooks/demo.yaml") and "\n" not in line, (content, line)
            assert not any(words in line for words in PYTHONS), (content, line)
    assert len(contents) / 2 < refused < len(contents)
