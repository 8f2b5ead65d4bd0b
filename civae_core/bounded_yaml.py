"""YAML of strangers: plain values only, no aliases that multiply, no nesting without an end."""

from typing import Any

import yaml

DEEPEST = 50
"""Levels of nesting; what civae reads has four."""


class BoundedLoader(yaml.SafeLoader):
    """A safe loader that refuses aliases and deep nesting as it composes, so before anything grows."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", mark)
        if self.depth >= DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "nested too deeply", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def plain_values(text: str) -> Any:
    """One YAML document as plain values.

    Raises:
        ValueError: it is none; says what and where, on one line.
    """
    try:
        return yaml.load(text, Loader=BoundedLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
