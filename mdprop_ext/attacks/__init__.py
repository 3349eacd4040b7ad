"""Input-gradient attacks on any model output: one engine = objective x parametrisation x projection."""

from mdprop_ext.attacks.attack import Attack
from mdprop_ext.attacks.batches import unpack_batch
from mdprop_ext.attacks.engine import AttackState
from mdprop_ext.attacks.feature_push import FeaturePush
from mdprop_ext.attacks.feature_target import FeatureTargetAttack, OtherEmbeddings
from mdprop_ext.attacks.fgsm import FGSM
from mdprop_ext.attacks.loader import AttackedBatch, attack_loader
from mdprop_ext.attacks.mifgsm import MIFGSM
from mdprop_ext.attacks.objectives import (
    CrossEntropy,
    FeatureDistance,
    FeatureTarget,
    Objective,
    SuccessRule,
    TargetRule,
)
from mdprop_ext.attacks.options import AttackOptions
from mdprop_ext.attacks.parametrisations import Parametrisation, Pixels
from mdprop_ext.attacks.pgd import PGD
from mdprop_ext.attacks.projections import L1, L2, Linf, Norm
from mdprop_ext.attacks.result import AttackResult
from mdprop_ext.attacks.targets import least_likely, random_other_class
from mdprop_ext.nn import Normalized

__all__ = [
    "FGSM",
    "L1",
    "L2",
    "MIFGSM",
    "PGD",
    "Attack",
    "AttackOptions",
    "AttackResult",
    "AttackState",
    "AttackedBatch",
    "CrossEntropy",
    "FeatureDistance",
    "FeaturePush",
    "FeatureTarget",
    "FeatureTargetAttack",
    "Linf",
    "Norm",
    "Normalized",
    "Objective",
    "OtherEmbeddings",
    "Parametrisation",
    "Pixels",
    "SuccessRule",
    "TargetRule",
    "attack_loader",
    "least_likely",
    "random_other_class",
    "unpack_batch",
]
