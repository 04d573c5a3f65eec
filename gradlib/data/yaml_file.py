"""The one reader of YAML: plain values within bounds, and errors that say in which line a key stands."""

import math
import re
from pathlib import Path

import pydantic
import yaml

from gradlib.checks import closest, first_error
from gradlib.data.faults import UNPRINTABLE
from gradlib.data.files import MAX_BYTES, one_line, printable, read_text

MAX_DEPTH = 20  # collections inside each other
MAX_VALUES = 100_000  # those that an alias repeats are counted each time
MAX_TEXT_LENGTH, MAX_NUMBER_LENGTH = 4096, 100  # characters
#: What is not a text: YAML 1.2's core schema, and merges. So NO, 007 and 2020-01-01 are texts as written.
KINDS = {
    "null": "~|null|",
    "bool": "true|false|True|False",
    "int": r"[-+]?(0|[1-9]\d*)",
    "float": r"[-+]?(\.\d+|(0|[1-9]\d*)(\.\d*)?)([eE][-+]?\d+)?",
    "merge": "<<",
}


class _Loader(yaml.SafeLoader):
    """Reads no tags, and nothing that is nested too deeply."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if tag := getattr(event, "tag", None):
            raise _error(f"the tag {tag!r}: leave it out", event)
        if self.depth > MAX_DEPTH:
            raise _error(f"nested more than {MAX_DEPTH} deep", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern in KINDS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), None)


def _error(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class YamlFile:
    """The mapping in the YAML file at `path`: `values`, and `lines` by key.

    A key is named by its path: "parameters.epochs", "solutions.0.grid.alpha" (the first entry of a list).
    Values are plain (text, finite numbers, true, false, null, lists, mappings) and bounded in number. `what`
    is the kind of file, for messages. printable_only: refuse also what changes the direction of writing, and
    the like, not control characters alone. Raises FileNotFoundError or ValueError in one line.
    """

    def __init__(self, path: Path, what: str, max_bytes: int = MAX_BYTES, printable_only: bool = True):
        self.path, self.lines, self._count, self._printable_only = path, {}, 0, printable_only
        try:
            text = read_text(path, max_bytes)
        except FileNotFoundError:
            others = sorted(str(other) for other in path.parent.glob("*.yaml"))
            hint = closest(str(path), others) if others else ""
            raise FileNotFoundError(f"{path}: no such {what}{hint}") from None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            self._check(node)  # before any value is made: an alias may repeat what repeats another
            self.values = loader.construct_document(node) if node else None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            mark, said = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            ours = type(error) is yaml.MarkedYAMLError
            raise ValueError(f"{where}: {'' if ours else 'not valid YAML: '}{one_line(said)}") from None
        if not isinstance(self.values, dict):
            raise ValueError(f"{path}: a {what} is a mapping, as `name: value`")

    def _check(self, node: yaml.Node | None, name: str = "", depth: int = 0) -> None:
        """Note the line of every key below `node`; raise where a value may not be read."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise _error(f"more than {MAX_VALUES:,} values, with those that aliases repeat", node)
        if depth > MAX_DEPTH:
            raise _error("nested too deeply, or within itself", node)
        seen, entries = {}, []
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            entries = [(str(at), value, value) for at, value in enumerate(node.value)]
        elif node:
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _error("a key that is not a text", key)
                self._check_scalar(key)
                if key.value in seen:
                    raise _error(f"the key {key.value!r} again, after line {seen[key.value]}", key)
                seen[key.value] = key.start_mark.line + 1
                entries.append((key.value, key, value))
        for key, at, value in entries:
            self.lines[f"{name}{key}"] = at.start_mark.line + 1
            self._check(value, f"{name}{key}.", depth + 1)

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        text, kind = node.value, node.tag.rpartition(":")[2]
        if len(text) > (MAX_TEXT_LENGTH if kind == "str" else MAX_NUMBER_LENGTH):
            raise _error(f"{text[:40]!r}... has {len(text):,} characters; shorten it", node)
        line = " ".join(text.split())
        if UNPRINTABLE.search(line) or (self._printable_only and not line.isprintable()):
            raise _error(f"{text[:60]!r} holds a character that cannot be shown", node)
        if kind == "float" and not math.isfinite(float(text)):
            raise _error(f"{text!r} is not a finite number", node)

    def error(self, key: str, message: str, kind: type = ValueError) -> Exception:
        """The error to raise about `key`: at its line, or else at that of what it stands in."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        if len(message) > 500:  # a list of thousands; the cure stands at the end
            message = f"{message[:300]} ... {message[-200:]}"
        place = f"{self.path}, line {line}" if line else str(self.path)
        return kind(f"{place}: {printable(message)}")

    def parse(self, model: type[pydantic.BaseModel], context: dict | None = None, **defaults: object):
        """The values, over `defaults`, as a pydantic `model`; what is wrong first is an error at its line."""
        try:
            return model.model_validate({**defaults, **self.values}, context=context)
        except pydantic.ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            raise self.error(key, first_error(error)) from None
