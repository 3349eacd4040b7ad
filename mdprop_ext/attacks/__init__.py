"""Input-gradient attacks on any model output: one engine = objective x parametrisation x projection."""

from mdprop_ext.attacks.attack import Attack, AttackResult
from mdprop_ext.attacks.feature_target import FeatureTargetAttack, OtherEmbeddings
from mdprop_ext.attacks.objectives import CrossEntropy, FeatureTarget, Objective, SuccessRule, TargetRule
from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.parametrisations import Parametrisation, Pixels
from mdprop_ext.attacks.pgd import PGD
from mdprop_ext.attacks.projections import L2, Linf, Norm

__all__ = [
    "L2",
    "PGD",
    "Attack",
    "AttackOptions",
    "AttackResult",
    "CrossEntropy",
    "FeatureTarget",
    "FeatureTargetAttack",
    "Linf",
    "Norm",
    "Objective",
    "OtherEmbeddings",
    "Parametrisation",
    "Pixels",
    "SuccessRule",
    "TargetRule",
]
