"""How models are asked and write boxes, by the names of their architectures, as validation looks it up."""

from __future__ import annotations

from biaskit.families import families
from biaskit.families.checkpoints.catalog import box_convention_of, wording_of
from biaskit.tasks.conventions import BoxConvention, Wording


def wording(model_type, base=""):
    return wording_of(families.get(model_type), base) if model_type in families else Wording()


def boxes(model_type, base=""):
    return box_convention_of(families.get(model_type), base) if model_type in families else BoxConvention()
