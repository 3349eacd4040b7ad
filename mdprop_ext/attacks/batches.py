"""Batches as loaders give them, taken apart into images and what the objective compares with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_IMAGE_KEYS = ("x", "image", "images", "img", "input", "inputs", "input_tensors", "pixel_values")
_LABEL_KEYS = ("y", "label", "labels", "target", "targets")


def unpack_batch(batch: Any, *, class_ids: bool = False) -> tuple[Tensor, Any]:
    """Finds images and labels in a batch: ``(x, y)``, ``(x, labels, index)``, a dict, or images alone.

    Args:
        batch: A tensor of images; a tuple or list of images, labels and whatever follows them; or a mapping with images
            under ``x``, ``image``, ``images``, ``img``, ``input``, ``inputs``, ``input_tensors`` or ``pixel_values``
            and labels under ``y``, ``label``, ``labels``, ``target`` or ``targets``.
        class_ids: Whether to turn one-hot labels ``[N, K]`` into class numbers int64 ``[N]``.

    Returns:
        Images ``[N, *]`` and labels, None where there are none.

    Raises:
        TypeError: If the batch has another form.
        ValueError: If a mapping has no images or several, or ``class_ids`` is asked of labels that are not one-hot.

    Example:
        >>> images, classes = unpack_batch((torch.rand(2, 3, 4, 4), torch.eye(2), torch.arange(2)), class_ids=True)
        >>> classes
        tensor([0, 1])
    """
    images: Any
    if isinstance(batch, Tensor):
        images, labels = batch, None
    elif isinstance(batch, Mapping):
        images, labels = _entry(batch, _IMAGE_KEYS), _entry(batch, _LABEL_KEYS)
        if images is None:
            raise ValueError(f"batch: expected images under one of {', '.join(_IMAGE_KEYS)}, got {list(batch)}")
    elif isinstance(batch, tuple | list) and batch:
        images, labels = batch[0], batch[1] if len(batch) > 1 else None
    else:
        raise TypeError(f"batch: expected images, (images, labels, ...) or a mapping, got {type(batch).__name__}")
    if not isinstance(images, Tensor):
        raise TypeError(f"batch: expected images as a tensor, got {type(images).__name__}")
    return images, _class_ids(labels) if class_ids else labels


def _entry(batch: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    found = [key for key in keys if key in batch]
    if len(found) > 1:
        raise ValueError(f"batch: expected one of {', '.join(keys)}, got {', '.join(found)}")
    return batch[found[0]] if found else None


def _class_ids(labels: Any) -> Tensor:
    if isinstance(labels, Tensor) and labels.dim() == 1 and labels.dtype == torch.int64:
        return labels
    if isinstance(labels, Tensor) and labels.dim() == 2 and bool(((labels != 0).sum(dim=1) == 1).all()):
        return (labels != 0).int().argmax(dim=1)
    got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
    raise ValueError(f"batch: class_ids expects labels int64 [N] or one-hot [N, K], got {got}")
