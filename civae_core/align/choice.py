"""The values of `--align`. This module imports nothing heavy, so that the command line can use it cheaply."""

from enum import StrEnum


class Align(StrEnum):
    """Whether to look for faces."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"
