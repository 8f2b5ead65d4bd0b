"""Procedural faces with a known causal process: the built-in data set and the test bed of every claim."""

from civae_core.synthetic.process import ATTRIBUTES, ROLES, FaceProcess, Subjects

__all__ = ["ATTRIBUTES", "ROLES", "FaceProcess", "Subjects"]
