"""Procedural faces with a known causal process: the built-in data set and the test bed of every claim."""

from civae_core.synthetic.process import ATTRIBUTES, ROLES, FaceProcess, Subjects

# The process is what callers mean by "the faces".
Faces = Subjects

__all__ = ["ATTRIBUTES", "ROLES", "FaceProcess", "Faces", "Subjects"]
