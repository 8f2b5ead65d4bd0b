"""Procedural faces with a known causal process: the built-in data set, and the test bed for every claim."""

from civae_core.synthetic.ageing import IN_TWO_CLASSES, IN_YEARS, Ageing
from civae_core.synthetic.process import (
    AGE_ATTRIBUTES,
    AGE_ROLES,
    ATTRIBUTES,
    ROLES,
    FaceProcess,
    Subjects,
    attributes_of,
    roles_of,
    roots_of,
)

__all__ = [
    "AGE_ATTRIBUTES",
    "AGE_ROLES",
    "ATTRIBUTES",
    "IN_TWO_CLASSES",
    "IN_YEARS",
    "ROLES",
    "Ageing",
    "FaceProcess",
    "Subjects",
    "attributes_of",
    "roles_of",
    "roots_of",
]
