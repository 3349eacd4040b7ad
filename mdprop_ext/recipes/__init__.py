"""Ways to train: each a configuration and one step, with a small trainer, checkpoints and evaluation around them."""

from mdprop_ext.recipes.advprop_st import AdvPropST, AdvPropSTConfig
from mdprop_ext.recipes.base import Batch, Criterion, Recipe
from mdprop_ext.recipes.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdprop_ext.recipes.evaluation import (
    AttackSetting,
    RobustnessMeter,
    clean_metrics,
    embed,
    grid_settings,
    robust_grid,
    robust_protocol,
)
from mdprop_ext.recipes.mdprop import MDProp, MDPropConfig
from mdprop_ext.recipes.mdprop_noise import MDPropNoise, MDPropNoiseConfig
from mdprop_ext.recipes.mdprop_shared import MDPropShared
from mdprop_ext.recipes.plain import Plain, PlainConfig
from mdprop_ext.recipes.registry import RECIPES, recipe_class
from mdprop_ext.recipes.run import RunInterrupted, RunResult, run_training
from mdprop_ext.recipes.settings import apply_settings, apply_values
from mdprop_ext.recipes.train_config import TrainConfig
from mdprop_ext.recipes.trainer import TrainOutcome, train

__all__ = [
    "RECIPES",
    "AdvPropST",
    "AdvPropSTConfig",
    "AttackSetting",
    "Batch",
    "Checkpoint",
    "Criterion",
    "MDProp",
    "MDPropConfig",
    "MDPropNoise",
    "MDPropNoiseConfig",
    "MDPropShared",
    "Plain",
    "PlainConfig",
    "Recipe",
    "RobustnessMeter",
    "RunInterrupted",
    "RunResult",
    "TrainConfig",
    "TrainOutcome",
    "apply_settings",
    "apply_values",
    "clean_metrics",
    "embed",
    "grid_settings",
    "load_checkpoint",
    "recipe_class",
    "robust_grid",
    "robust_protocol",
    "run_training",
    "save_checkpoint",
    "train",
]
