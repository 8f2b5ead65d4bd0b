"""A page's question about a photograph, validated because anybody may send one."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from civae_core.assignments import LARGEST_VALUE
from civae_core.attributes import Attribute, require_name
from civae_core.errors import UsageError
from civae_core.reading import parse_json

MOST_MODELS = 2
_HINT = "reload the page; it may be from another version of civae than the server"
_Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST_VALUE, le=LARGEST_VALUE)]
_Values = Annotated[dict[str, _Number], Field(max_length=200)]


class Question(BaseModel):
    """Which models are to show what; only the attributes that are named are stated or set."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    models: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1, max_length=MOST_MODELS)
    """Models by number; two are compared on one scale of effects."""
    treat: _Values = {}
    """t', in raw units."""
    attr: _Values = {}
    """Factual values, in raw units."""
    noise: Annotated[_Number, Field(ge=0.0, le=1.0)] = 1.0
    """τ of (M6)."""
    native: bool = False
    """For downloads: at the photograph's original size."""


def parse_question(text: bytes) -> Question:
    """Parse a question from JSON.

    Raises:
        UsageError: the text is not a valid question; the message names the first problem.
    """
    try:
        return Question.model_validate(parse_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where or 'question'}: {first['msg']}", hint=_HINT) from error
    except ValueError as error:
        raise UsageError(f"the question is not JSON: {error}", hint=_HINT) from error


def of_model(
    values: Mapping[str, float], wanted: Sequence[Attribute], known: Mapping[str, Any], what: str
) -> dict[str, float]:
    """The values of the attributes that one model has, in that model's order.

    Args:
        values: values by attribute name.
        wanted: the attributes of the model.
        known: the attributes of all models that were asked.
        what: what messages call the values.

    Raises:
        UsageError: none of the models has an attribute of that name.
    """
    for name in values:
        require_name(name, known, what)
    return {a.name: values[a.name] for a in wanted if a.name in values}
