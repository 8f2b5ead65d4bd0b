"""Known interventions as named on a command line: `Young=flip`, `Age=20:80:4`, and joint: `Young=0,Male=flip`."""

from collections.abc import Collection, Iterable, Sequence

from civae_core.assignments import do_text, parse_treatments
from civae_core.attributes import Attribute
from civae_core.data.sources.base import TruthSpec
from civae_core.errors import UsageError

FLAG = "--truth"


def parse_truths(
    texts: Sequence[str], roots: Iterable[Attribute], consequences: Collection[str]
) -> list[TruthSpec]:
    """The interventions that several `--truth` options ask for, each once, in the order given.

    Attributes joined by commas in one text are set together in one do(), and sweeps in it expand to their grid.
    Several texts are separate questions.

    Args:
        roots: attributes that can be set.
        consequences: attributes that follow from others.

    Raises:
        UsageError: an attribute is not a root or is set twice at once, or `parse_treatments` refuses the text.
    """
    kinds = {attribute.name: attribute.kind for attribute in roots}
    continuous = [name for name, kind in kinds.items() if kind == "continuous"]
    found: dict[str, TruthSpec] = {}
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 1 and not all(parts):
            raise UsageError(
                f"{FLAG} {text}: has a comma too many", hint="write it as in Young=flip,Male=flip"
            )
        names = [part.partition("=")[0].strip() for part in parts]
        for place, name in enumerate(names):
            if name in consequences:
                raise UsageError(
                    f"{FLAG} {text}: {name} follows from other attributes, so it cannot be set",
                    hint=f"set one of {', '.join(kinds)}",
                )
            if name in names[:place]:
                raise UsageError(
                    f"{FLAG} {text}: {name} is set twice",
                    hint=f"to ask several questions, repeat {FLAG}",
                )
        for do in parse_treatments(parts, kinds, continuous, FLAG):
            name = do_text(do, ",")  # its name in dataset.yml
            found.setdefault(name, TruthSpec(name, do))
    return list(found.values())
