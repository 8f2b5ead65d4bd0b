"""What `--align` may be; imports nothing, so that the command line can name it cheaply."""

from enum import StrEnum


class Align(StrEnum):
    """Whether faces are looked for."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"
