"""Losses of metric learning, miners, and what wraps them: a memory, a gather across processes."""

from mdprop_ext.losses.arcface import ArcFaceLoss
from mdprop_ext.losses.by_name import LOSS_NAMES, loss_by_name
from mdprop_ext.losses.class_loss import ClassLoss
from mdprop_ext.losses.contrastive import ContrastiveLoss
from mdprop_ext.losses.cross_batch_memory import CrossBatchMemory
from mdprop_ext.losses.gathered import GatheredLoss
from mdprop_ext.losses.indices import IndicesTuple, all_pairs, all_triplets, as_pairs, as_triplets
from mdprop_ext.losses.mined import MinedLoss
from mdprop_ext.losses.miners import BatchHardMiner, Miner, MultiSimilarityMiner, TripletKind, TripletMarginMiner
from mdprop_ext.losses.multi_similarity import MultiSimilarityLoss
from mdprop_ext.losses.pair_loss import PairLoss
from mdprop_ext.losses.proxy_anchor import ProxyAnchorLoss
from mdprop_ext.losses.triplet_margin import TripletMarginLoss

__all__ = [
    "MultiSimilarityLoss",
    "TripletMarginLoss",
    "ContrastiveLoss",
    "ArcFaceLoss",
    "ProxyAnchorLoss",
    "LOSS_NAMES",
    "loss_by_name",
    "BatchHardMiner",
    "TripletKind",
    "TripletMarginMiner",
    "MultiSimilarityMiner",
    "MinedLoss",
    "CrossBatchMemory",
    "GatheredLoss",
    "ClassLoss",
    "PairLoss",
    "Miner",
    "IndicesTuple",
    "all_pairs",
    "all_triplets",
    "as_pairs",
    "as_triplets",
]
