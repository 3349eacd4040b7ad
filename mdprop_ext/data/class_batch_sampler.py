"""Batches with the same number of images from each of several classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop_ext._arguments import check_integer
from mdprop_ext.data._shards import ShardedBatchSampler, shard_of


class ClassBatchSampler(ShardedBatchSampler):
    """Draws batches of ``classes`` classes with ``per_class`` images each, for ``DataLoader(batch_sampler=...)``.

    Classes are dealt like cards: each comes once before any comes twice, in a new random order every round. So are
    the images of a class. An epoch has about one batch for every ``classes * per_class`` images, and as many as it
    takes to meet every class. A class with fewer than ``per_class`` images is drawn from with replacement.

    The order depends on ``seed`` and the epoch alone; call :meth:`set_epoch` before each epoch for a new one. Of
    several processes each gets a part of every batch; put together in the order of ranks, they are the batch of a
    single process. The parts hold whole classes where ``world_size`` divides ``classes``, and differ by at most one in
    size.

    Args:
        labels: Class of each image, integers ``[N]``.
        classes: Distinct classes in a batch, at least 1.
        per_class: Images of each class in a batch, at least 1.
        seed: Of the order, at least 0.
        rank: Of this process; None means that in ``torch.distributed``, if that is initialised.
        world_size: Number of processes, given together with ``rank``, at most ``classes * per_class``.

    Raises:
        TypeError: If ``labels`` are not integers, or a number is not an int.
        ValueError: If ``labels`` is not one-dimensional, has fewer classes than asked for, or a number is out of range.

    Example:
        >>> sampler = ClassBatchSampler([0, 0, 0, 1, 1, 1, 2, 2, 2], classes=2, per_class=2, seed=0)
        >>> [len(batch) for batch in sampler]
        [4, 4]
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        classes: int,
        per_class: int,
        seed: int = 0,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(seed, rank, world_size)
        try:
            values = torch.as_tensor(labels).cpu().numpy()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"labels: expected integers [N], got {type(labels).__name__} of others") from error
        if values.size and not numpy.issubdtype(values.dtype, numpy.integer):
            raise TypeError(f"labels: expected integers, got dtype {values.dtype}")
        if values.ndim != 1:
            raise ValueError(f"labels: expected shape [N], got {list(values.shape)}")
        check_integer("classes", classes, least=1)
        check_integer("per_class", per_class, least=1)
        self._images = _positions_by_class(values)
        if len(self._images) < classes:
            raise ValueError(f"classes: expected at most the {len(self._images)} classes of the labels, got {classes}")
        if self.world_size > classes * per_class:
            raise ValueError(
                f"world_size: expected at most the {classes * per_class} images of a batch, got {self.world_size}"
            )
        self.classes = classes
        self.per_class = per_class
        rounds = -(-len(self._images) // classes)
        self._batches = max(rounds, len(values) // (classes * per_class))

    def __len__(self) -> int:
        """Returns the number of batches in a whole epoch, the same for all processes."""
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yields lists of positions, class by class: ``classes * per_class``, or the part of this process."""
        generator = self._generator()
        class_deck = _Deck(numpy.arange(len(self._images)), generator)
        image_decks = [_Deck(images, generator) for images in self._images]
        part = shard_of(self.classes * self.per_class, self.rank, self.world_size)
        for index in range(self._batches):
            # Batches left out are drawn all the same: the next ones depend on what is left in the decks.
            drawn = class_deck.draw(self.classes)
            batch = [image for label in drawn for image in image_decks[label].draw(self.per_class)]
            if index >= self.start:
                yield batch[part]

    def __repr__(self) -> str:
        options = f"classes={self.classes}, per_class={self.per_class}, seed={self.seed}"
        return f"ClassBatchSampler({options}, rank={self.rank}, world_size={self.world_size})"


def _positions_by_class(labels: NDArray[numpy.int64]) -> list[NDArray[numpy.int64]]:
    """Returns the ascending positions of each class, classes in ascending order."""
    order = labels.argsort(kind="stable")
    _, starts = numpy.unique(labels[order], return_index=True)
    return numpy.split(order, starts[1:]) if len(starts) else []


class _Deck:
    """Cards that are dealt in random order, each once before any is dealt again."""

    def __init__(self, cards: NDArray[numpy.int64], generator: numpy.random.Generator) -> None:
        self._cards = cards
        self._generator = generator
        self._left: list[int] = []

    def draw(self, count: int) -> list[int]:
        """Returns ``count`` cards, all different if the deck has that many."""
        if count > len(self._cards):
            return [int(card) for card in self._generator.choice(self._cards, size=count)]
        hand, self._left = self._left[:count], self._left[count:]
        if len(hand) < count:
            # Between two rounds: the hand is filled from the new one with cards that it does not hold yet.
            shuffled: list[int] = self._generator.permutation(self._cards).tolist()
            held = set(hand)
            fresh = [card for card in shuffled if card not in held][: count - len(hand)]
            dealt = set(fresh)
            self._left = [card for card in shuffled if card not in dealt]
            hand = hand + fresh
        return hand
