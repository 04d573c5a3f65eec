"""A YAML mapping that knows where each of its keys stands, for errors that say so."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from gradlib.config import closest
from gradlib.data import reading
from gradlib.data.names import plain

__all__ = ["YamlFile"]

MOST = 100_000  # values, those that an alias repeats counted each time
LONGEST = 4096  # characters of a text
DIGITS = 100  # characters of a number
SEEDS = 2**32  # the libraries that are seeded take less
#: What JSON, and so a notebook, knows too; not dates, bytes, sets or Python's objects.
PLAIN = ("str", "int", "float", "bool", "null", "seq", "map", "merge")


class YamlFile:
    """The mapping in the file at `path`; its top level must hold some of `keys` and no other.

    A key is named by its path: "parameters.epochs", "solutions.0.grid.alpha" (the first entry of a list).
    Values are plain (text, numbers, true, false, null, lists, mappings), finite, and bounded in number.
    Raises FileNotFoundError or ValueError, in one line.
    """

    def __init__(self, path: Path, what: str, keys: Sequence[str]):
        self.path, self.lines = path, {}
        self._count = 0
        try:
            loader = yaml.SafeLoader(reading.text(path))
            node = loader.get_single_node()
            self._check(node)  # before any value is made: an alias may repeat what repeats another
            self.values = self._values(loader, node)
        except FileNotFoundError:
            others = (str(other) for other in sorted(path.parent.glob("*.yaml")))
            message = f"{what} {path} does not exist{closest(str(path), others)}"
            raise FileNotFoundError(message) from None
        except RecursionError:
            raise ValueError(f"{path}: is nested too deeply, or within itself") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error)
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            raise ValueError(f"{where}: not valid YAML: {plain(said)}") from None
        if not isinstance(self.values, dict):
            raise ValueError(f"{path}: a {what} is a mapping with the keys {', '.join(keys)}")
        self._finite(self.values)
        for key in self.values:
            if key not in keys:
                raise self.unknown(str(key), str(key), "key", keys)

    def _values(self, loader: yaml.SafeLoader, node: yaml.Node | None) -> object:
        try:
            return loader.construct_document(node) if node else None
        except (LookupError, ValueError) as error:  # a tag that its value does not fit, as !!int x
            raise ValueError(f"{self.path}: not valid YAML: {error}; leave tags out") from None

    def _check(self, node: yaml.Node | None, prefix: str = "") -> None:
        """Note the line of every key below `node`; ValueError where a value is none to read."""
        if isinstance(node, yaml.MappingNode):
            entries = [(key.value, value, key.start_mark.line + 1) for key, value in node.value]
            for key, _ in node.value:
                self._check_value(key)
        elif isinstance(node, yaml.SequenceNode):
            entries = [(at, value, value.start_mark.line + 1) for at, value in enumerate(node.value)]
        else:
            return
        for key, value, line in entries:
            name = f"{prefix}{key}"
            if name in self.lines:
                raise self.error(name, f"{key!r} is given again in line {line}")
            self.lines[name] = line
            self._check_value(value)
            self._check(value, f"{name}.")

    def _check_value(self, node: yaml.Node) -> None:
        where, self._count = f"{self.path}, line {node.start_mark.line + 1}", self._count + 1
        if self._count > MOST:
            raise ValueError(f"{where}: holds more than {MOST:,} values, with what is repeated; give fewer")
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in PLAIN:
            text = f"{plain(node.value)[:60]!r} is read as {kind!r}; put a text in quotes"
            raise ValueError(f"{where}: {text}")
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > (LONGEST if kind == "str" else DIGITS):
                text = f"{node.value[:40]!r}... has {len(node.value):,} characters; shorten it"
                raise ValueError(f"{where}: {text}")
            if plain(node.value) != " ".join(node.value.split()):
                raise ValueError(f"{where}: {node.value[:60]!r} holds a character that cannot be shown")

    def _finite(self, value: object, key: str = "") -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(key, f"{key.rpartition('.')[2]!r} is {value!r}; give a finite number")
        if isinstance(value, (dict, list)):
            for name, one in value.items() if isinstance(value, dict) else enumerate(value):
                self._finite(one, f"{key}.{name}" if key else str(name))

    def error(self, key: str, message: str) -> ValueError:
        """The error to raise about `key`: at its line, or else at that of what it stands in."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        if len(message) > 500:  # a list of thousands; the cure stands at the end
            message = f"{message[:300]} ... {message[-200:]}"
        return ValueError(f"{self.path}, line {line}: {message}" if line else f"{self.path}: {message}")

    def unknown(self, key: str, name: str, what: str, known: Iterable[str]) -> ValueError:
        """The error about the unknown `name` at `key`, with its nearest match among `known`."""
        return self.error(key, f"unknown {what} {name!r}{closest(name, known)}")

    def numbers(self, key: str) -> list[int]:
        """The list of whole numbers under `key`, [0] where there is none."""
        values = self.values.get(key, [0])
        whole = isinstance(values, list) and all(type(value) is int for value in values)
        if not whole or not values or len(set(values)) < len(values):
            text = f"{key!r} is {values!r}; give a list of different whole numbers, as [0, 1, 2]"
            raise self.error(key, text)
        if not 0 <= min(values) <= max(values) < SEEDS:
            raise self.error(key, f"{key!r} is {values!r}; give numbers from 0 to {SEEDS - 1}")
        return values
