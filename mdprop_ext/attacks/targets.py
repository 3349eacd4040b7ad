"""Target rules for classifiers: which class to reach, from the logits of the clean images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdprop_ext.attacks.objectives import check_columns, rows_of_output


def least_likely(output: Any, y: Any, generator: torch.Generator) -> Tensor:
    """Takes the class that the model finds least likely.

    Args:
        output: Logits ``[N, K]`` of the clean images.
        y: Not used.
        generator: Not used.

    Returns:
        Classes int64 ``[N]``.
    """
    return rows_of_output(output, "logits").argmin(dim=1)


def random_other_class(output: Any, y: Tensor | None, generator: torch.Generator) -> Tensor:
    """Draws a class that is not the image's own, each of the others equally often.

    Args:
        output: Logits ``[N, K]`` of the clean images, K >= 2.
        y: The images' own classes int64 ``[N]``; None means those that the model predicts.
        generator: Source of the draws, on the device of ``output``.

    Returns:
        Classes int64 ``[N]``.

    Raises:
        ValueError: If there is only one class, or ``y`` holds one that the logits do not have.
    """
    logits = rows_of_output(output, "logits")
    count, classes = logits.shape
    if classes < 2:
        raise ValueError(f"output: expected logits of two classes at least, got {list(logits.shape)}")
    own = logits.argmax(dim=1) if y is None else y
    check_columns("y", own, logits)
    drawn = torch.randint(classes - 1, (count,), generator=generator, device=logits.device)
    return drawn + (drawn >= own)
