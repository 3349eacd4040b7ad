"""Which rows the README shows, losing ones among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CPU_MACHINE = "xeon-emerald-rapids-2-cores"


@dataclass(frozen=True)
class Quote:
    """A row against one peer, and how the README words it."""

    op: str
    case: str
    peer: str
    case_label: str = ""
    peer_label: str = ""
    dtype: str = "float32"
    op_label: str = ""
    required: bool = True

    def selects(self, row: dict[str, Any]) -> bool:
        """Whether a row of the results is the one meant."""
        return (row["op"], row["case"], row["dtype"]) == (self.op, self.case, self.dtype)


SPLIT, FAISS = "split, BatchNorm, cat", "faiss-cpu, IndexBinaryFlat"
TILED = "tiled addmm and topk (inexact)"

QUOTES = (
    Quote(
        "multi_batch_norm",
        "128x64x28x28 nchw train relu",
        "split",
        "128x64x28x28, NCHW, training with ReLU, 2 branches",
        SPLIT,
    ),
    Quote("multi_batch_norm", "128x64x28x28 channels_last train relu", "split", "the same, channels_last", SPLIT),
    Quote("multi_batch_norm", "16x64x56x56 nchw train", "split", "16x64x56x56, NCHW, training, 2 branches", SPLIT),
    Quote("multi_batch_norm", "64x512x7x7 channels_last eval", "split", "64x512x7x7, channels_last, evaluation", SPLIT),
    Quote("pgd_step", "16x3x224x224 linf", "eager", "linf, 16x3x224x224", "eager PyTorch"),
    Quote("pgd_step", "16x3x224x224 l2", "eager", "l2, 16x3x224x224", "eager PyTorch"),
    Quote("pgd_step", "64x1x28x28 linf", "eager", "linf, 64x1x28x28", "eager PyTorch"),
    Quote(
        "hamming_topk",
        "1000 x 1000000, 64 bits, k 10",
        "faiss",
        "1,000 queries, 1,000,000 codes of 64 bits, k = 10",
        FAISS,
        "int64",
    ),
    Quote("hamming_topk", "1000 x 1000000, 128 bits, k 100", "faiss", "the same, 128 bits, k = 100", FAISS, "int64"),
    Quote("hamming_topk", "1 x 100, 64 bits, k 10", "faiss", "1 query, 100 codes of 64 bits, k = 10", FAISS, "int64"),
    Quote(
        "knn_topk",
        "1000 x 200000, D 128, k 10, sqeuclidean",
        "faiss",
        "1,000 queries, 200,000 points, D = 128, k = 10",
        "faiss-cpu, IndexFlatL2 (inexact)",
    ),
    Quote("knn_topk", "1000 x 200000, D 128, k 10, sqeuclidean", "addmm_topk", "the same", TILED),
    Quote(
        "knn_topk",
        "200 x 300, D 64, k 300, euclidean",
        "addmm_topk",
        "200 queries, 300 points, D = 64, k = 300",
        TILED,
    ),
    Quote(
        "train_step",
        "mdprop conv4 28x28, batch 64",
        "reference",
        "conv4, 64 images of 28x28",
        "`MDPROP_BACKEND=reference`",
        op_label="MDProp step",
    ),
    Quote(
        "train_step",
        "mdprop conv4 28x28, batch 64",
        "split",
        "the same",
        "split, `F.batch_norm`, `cat`, `relu`",
        op_label="MDProp step",
    ),
)


def on_card(op: str, case: str, peer: str, peer_label: str, dtype: str = "float32") -> Quote:
    """A row of a card, which a run that was cut short may lack."""
    return Quote(op, case, peer, peer_label=peer_label, dtype=dtype, required=False)


GPU_QUOTES = (
    *(
        on_card("multi_batch_norm", f"64x256x56x56 {layout} {way} B 2", peer, label, "bfloat16")
        for layout in ("nchw", "channels_last")
        for way in ("forward", "backward")
        for peer, label in (("reference", SPLIT), ("compile", "`torch.compile` of it"))
    ),
    *(
        on_card("multi_batch_norm", f"64x256x56x56 {layout} {way} B 1", "batch_norm", "`F.batch_norm`", "bfloat16")
        for layout in ("nchw", "channels_last")
        for way in ("forward", "backward")
    ),
    *(
        on_card("pgd_step", f"128x3x224x224 {norm}", peer, label)
        for norm in ("linf", "l2")
        for peer, label in (("eager", "eager PyTorch"), ("compile", "`torch.compile` of it"))
    ),
    on_card("pgd_step", "128x3x224x224 l1", "eager", "projection by sorting"),
    on_card("knn_topk", "10000 x 1000000, D 128, k 10", "mm_topk", "tiled fp32 product and topk (inexact)"),
    on_card("knn_topk", "10000 x 1000000, D 128, k 10", "cuvs", "cuVS, brute force (inexact)"),
    on_card("knn_topk", "1000 groups of 100 x 1000, D 128, k 10", "loop", "loop over groups (inexact)"),
    on_card("hamming_topk", "10000 x 1000000, 64 bits, k 10", "int8_topk", "int8 product and topk", "int64"),
    on_card("hamming_topk", "10000 x 1000000, 128 bits, k 10", "int8_topk", "int8 product and topk", "int64"),
    on_card("hamming_topk", "10000 x 1000000, 64 bits, k 10", "faiss", "faiss, GpuIndexBinaryFlat", "int64"),
    *(
        on_card("attack", f"PGD-10 linf, resnet50, 32x3x224x224, {how}", peer, label)
        for how in ("PGD", "one CUDA graph")
        for peer, label in (("eager", "eager loop"), ("torchattacks", "torchattacks"))
    ),
)
