"""Loading of untrusted YAML: plain values only, no aliases, which can multiply, and no unbounded nesting."""

from typing import Any

import yaml

DEEPEST = 50
"""Maximum levels of nesting; the files that civae reads have four."""


class BoundedLoader(yaml.SafeLoader):
    """A safe loader that refuses aliases and deep nesting while composing, before any of it is expanded."""

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
    """Parse one YAML document into plain values.

    Raises:
        ValueError: the text is invalid; the message says what is wrong and where, on one line.
    """
    try:
        return yaml.load(text, Loader=BoundedLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
