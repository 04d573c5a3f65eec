"""The one reader of YAML: plain values within bounds, and errors that say in which line a key stands."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from gradlib.config import closest
from gradlib.data.files import MAX_BYTES, one_line, printable, read_text

__all__ = ["YamlFile"]

MAX_DEPTH = 20  # collections inside each other
MAX_VALUES = 100_000  # those that an alias repeats are counted each time
MAX_TEXT_LENGTH, MAX_NUMBER_LENGTH = 4096, 100  # characters
MAX_SEED = 2**32 - 1  # of the libraries that are seeded
#: What JSON, and so a notebook, knows too. Anything else, as a date, is a text.
KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "merge")}


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

    def construct_yaml_float(self, node):
        if not math.isfinite(value := super().construct_yaml_float(node)):
            raise _error(f"{node.value!r} is not a finite number", node)
        return value


class _AsWritten(_Loader):
    """Leaves texts as written: YAML would make False of a class called NO, and 7 of one called 007."""


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in KINDS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_AsWritten.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"(?:0|-?[1-9]\d{0,8})\Z"), "-0123456789"
)


def _error(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class YamlFile:
    """The mapping in the YAML file at `path`: `values`, and `lines` by key.

    A key is named by its path: "parameters.epochs", "solutions.0.grid.alpha" (the first entry of a list).
    Values are plain (text, numbers, true, false, null, lists, mappings), finite, and bounded in number.

    what: the kind of file, for messages. keys: the known keys; None allows any. as_written: every value is
    a text, but for null and whole numbers without a leading zero. Raises FileNotFoundError or ValueError.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        keys: Sequence[str] | None = None,
        as_written: bool = False,
        max_bytes: int = MAX_BYTES,
    ):
        self.path, self.lines, self._count = path, {}, 0
        try:
            text = read_text(path, max_bytes)
        except FileNotFoundError:
            others = sorted(str(other) for other in path.parent.glob("*.yaml"))
            hint = closest(str(path), others) if others else ""
            raise FileNotFoundError(f"{path}: no such {what}{hint}") from None
        try:
            loader = (_AsWritten if as_written else _Loader)(text)
            node = loader.get_single_node()
            self._check(node)  # before any value is made: an alias may repeat what repeats another
            self.values = loader.construct_document(node) if node else None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            mark, said = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            ours = type(error) is yaml.MarkedYAMLError
            raise ValueError(f"{where}: {'' if ours else 'not valid YAML: '}{one_line(said)}") from None
        if not isinstance(self.values, dict):
            text = f" with the keys {', '.join(keys)}" if keys else ""
            raise ValueError(f"{path}: a {what} is a mapping{text}")
        for key in self.values:
            if keys and key not in keys:
                raise self.unknown(str(key), str(key), "key", keys)

    def _check(self, node: yaml.Node | None, name: str = "", depth: int = 0) -> None:
        """Note the line of every key below `node`; raise where a value may not be read."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise _error(f"more than {MAX_VALUES:,} values, with those that aliases repeat", node)
        if depth > MAX_DEPTH:
            raise _error("nested too deeply, or within itself", node)
        seen = {}
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            for at, value in enumerate(node.value):
                self._check_entry(f"{name}{at}", value, value, depth)
        elif node:
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _error("a key that is not a text", key)
                _check_scalar(key)
                if key.value in seen:
                    raise _error(f"the key {key.value!r} again, after line {seen[key.value]}", key)
                seen[key.value] = key.start_mark.line + 1
                self._check_entry(f"{name}{key.value}", key, value, depth)

    def _check_entry(self, name: str, at: yaml.Node, value: yaml.Node, depth: int) -> None:
        self.lines[name] = at.start_mark.line + 1
        self._check(value, f"{name}.", depth + 1)

    def error(self, key: str, message: str, kind: type = ValueError) -> Exception:
        """The error to raise about `key`: at its line, or else at that of what it stands in."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        if len(message) > 500:  # a list of thousands; the cure stands at the end
            message = f"{message[:300]} ... {message[-200:]}"
        place = f"{self.path}, line {line}" if line else str(self.path)
        return kind(f"{place}: {printable(message)}")

    def unknown(self, key: str, name: str, what: str, known: Iterable[str]) -> Exception:
        """The error about the unknown `name` at `key`, with its nearest match among `known`."""
        return self.error(key, f"unknown {what} {name!r}{closest(name, known)}")

    def parse(self, model: type[BaseModel]) -> BaseModel:
        """The values as a pydantic `model`; what is wrong first is an error at its line."""
        try:
            return model.model_validate(self.values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise self.error(key, f"a missing key; add {key!r}")
        if first["type"] == "extra_forbidden":
            raise self.unknown(key, str(first["loc"][-1]), "key", model.model_fields)
        raise self.error(key, f"{key}: {first['input']!r}: {message}")

    def numbers(self, key: str) -> list[int]:
        """The list of whole numbers under `key`, [0] where there is none."""
        values = self.values.get(key, [0])
        whole = isinstance(values, list) and all(type(value) is int for value in values)
        if not whole or not values or len(set(values)) < len(values):
            text = f"{key!r} is {values!r}; give a list of different whole numbers, as [0, 1, 2]"
            raise self.error(key, text)
        if not 0 <= min(values) <= max(values) <= MAX_SEED:
            raise self.error(key, f"{key!r} is {values!r}; give numbers from 0 to {MAX_SEED}")
        return values


def _check_scalar(node: yaml.ScalarNode) -> None:
    text = node.value
    if len(text) > (MAX_TEXT_LENGTH if node.tag.endswith(":str") else MAX_NUMBER_LENGTH):
        raise _error(f"{text[:40]!r}... has {len(text):,} characters; shorten it", node)
    if one_line(text) != " ".join(text.split()):
        raise _error(f"{text[:60]!r} holds a character that cannot be shown", node)
