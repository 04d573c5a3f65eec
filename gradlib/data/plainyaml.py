"""YAML without what could hurt its reader: aliases that multiply, tags that construct, endless nesting."""

import yaml

__all__ = ["compose"]

DEEPEST = 20  # collections inside each other


def compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, None where it is empty.

    Raises yaml.YAMLError, also for an alias, a tag, a key given twice and what is nested too deeply.
    """
    try:
        depth = 0
        # One event after the other: nothing is built of a text that is refused.
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise _error("an alias: write the value itself", event)
            if getattr(event, "tag", None):
                raise _error(f"the tag {event.tag!r}: leave it out", event)
            starts = isinstance(event, yaml.CollectionStartEvent)
            depth += starts - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise _error(f"nested more than {DEEPEST} deep", event)
        node = yaml.compose(text, yaml.SafeLoader)
    except (ValueError, OverflowError) as error:  # a number or a character that cannot be
        raise yaml.YAMLError(str(error)) from None
    _check_keys(node)
    return node


def _error(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _check_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _check_keys(entry)
    elif isinstance(node, yaml.MappingNode):
        lines = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key that is no text", key)
            if key.value in lines:
                raise _error(f"the key {key.value!r} for the second time, after line {lines[key.value]}", key)
            lines[key.value] = key.start_mark.line + 1
            _check_keys(value)
