"""A YAML mapping that knows where each of its keys stands, for errors that say so."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from gradlib.config import closest

__all__ = ["YamlFile"]


class YamlFile:
    """The mapping in the file at `path`; its top level must hold some of `keys` and no other.

    A key is named by its path: "parameters.epochs", "solutions.0.grid.alpha" (the first entry of a list).
    Raises FileNotFoundError or ValueError, in one line.
    """

    def __init__(self, path: Path, what: str, keys: Sequence[str]):
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            node = yaml.compose(text, yaml.SafeLoader)
            self.values = yaml.safe_load(text)
        except FileNotFoundError:
            others = (str(other) for other in sorted(path.parent.glob("*.yaml")))
            message = f"{what} {path} does not exist{closest(str(path), others)}"
            raise FileNotFoundError(message) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error)
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            raise ValueError(f"{where}: not valid YAML: {said}") from None
        if not isinstance(self.values, dict):
            raise ValueError(f"{path}: a {what} is a mapping with the keys {', '.join(keys)}")
        self.lines: dict[str, int] = {}
        self._number(node)
        for key in self.values:
            if key not in keys:
                raise self.unknown(str(key), str(key), "key", keys)

    def _number(self, node: yaml.Node, prefix: str = "") -> None:
        if isinstance(node, yaml.MappingNode):
            entries = [(key.value, value, key.start_mark.line + 1) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            entries = [(at, value, value.start_mark.line + 1) for at, value in enumerate(node.value)]
        else:
            return
        for key, value, line in entries:
            name = f"{prefix}{key}"
            if name in self.lines:
                raise self.error(name, f"{key!r} is given again in line {line}")
            self.lines[name] = line
            self._number(value, f"{name}.")

    def error(self, key: str, message: str) -> ValueError:
        """The error to raise about `key`: at its line, or else at that of what it stands in."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        return ValueError(f"{self.path}, line {line}: {message}" if line else f"{self.path}: {message}")

    def unknown(self, key: str, name: str, what: str, known: Iterable[str]) -> ValueError:
        """The error about the unknown `name` at `key`, with its nearest match among `known`."""
        return self.error(key, f"unknown {what} {name!r}{closest(name, known)}")

    def numbers(self, key: str) -> list[int]:
        """The list of whole numbers under `key`, [0] where there is none."""
        values = self.values.get(key, [0])
        whole = isinstance(values, list) and all(type(value) is int for value in values)
        if not whole or not values or min(values) < 0 or len(set(values)) < len(values):
            text = f"{key!r} is {values!r}; give a list of different whole numbers, as [0, 1, 2]"
            raise self.error(key, text)
        return values
