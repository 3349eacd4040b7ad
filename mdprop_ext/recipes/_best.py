"""The weights of a run that did best on validation images."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from mdprop_ext.data import ImageSet
from mdprop_ext.metrics import retrieval_metrics
from mdprop_ext.recipes.evaluation import embed
from mdprop_ext.recipes.processes import done_by_first


class BestWeights:
    """Keeps the weights of the highest validation R@1, of equal ones those of the higher mAP@R."""

    def __init__(self) -> None:
        self.step = 0
        self.weights: dict[str, Tensor] = {}
        #: Measurements since these weights.
        self.waiting = 0
        self._score = (-math.inf, -math.inf)

    def update(self, step: int, model: nn.Module, validation: ImageSet) -> dict[str, float]:
        """Measures a model, keeps its weights if they are the best, and returns what to log."""
        metrics = done_by_first(lambda: _measured(model, validation))
        # On few classes R@1 is soon the same for many steps, and mAP@R still tells them apart.
        score = metrics["recall_at_1"], metrics["map_at_r"]
        self.waiting += 1
        if score > self._score:
            self.step, self.waiting, self._score = step, 0, score
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return {"val_recall_at_1": score[0], "val_map_at_r": score[1], "best_val_recall_at_1": self._score[0]}

    def state_dict(self) -> dict[str, Any]:
        """Returns all of this."""
        return {"step": self.step, "waiting": self.waiting, "score": list(self._score), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self.step, self.waiting, self.weights = state["step"], state["waiting"], state["weights"]
        self._score = (state["score"][0], state["score"][1])


def _measured(model: nn.Module, validation: ImageSet) -> dict[str, float]:
    embeddings = embed(model, validation)
    return retrieval_metrics(embeddings, validation.labels.to(embeddings.device), ks=(1,))
