"""The images that a command works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mdprop_ext.data import DATA_NAMES, ImageSet, Splits, load_folder, load_omniglot, load_splits
from mdprop_ext.recipes import Checkpoint


@dataclass(frozen=True)
class DataSource:
    """Arguments of :func:`~mdprop_ext.data.load_splits` as the command line has them.

    Args:
        name: ``"digits"``, ``"omniglot"`` or ``"folder"``.
        train: ``PATH[::A,B]`` of the training classes.
        test: ``PATH[::A,B]`` of the test classes.
        image_size: Height and width in pixels.
        channels: 1 or 3.
    """

    name: str
    train: str | None = None
    test: str | None = None
    image_size: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.name not in DATA_NAMES:
            raise ValueError(f"data: expected one of {', '.join(DATA_NAMES)}, got {self.name!r}")

    def __repr__(self) -> str:
        """Returns the arguments that were given."""
        given = [f"{name}={value!r}" for name, value in self.describe().items() if value is not None]
        return f"DataSource({', '.join(given)})"

    def load(self, seed: int) -> Splits:
        """Loads all three splits; the seed draws the validation classes."""
        return load_splits(
            self.name, train=self.train, test=self.test, image_size=self.image_size, channels=self.channels, seed=seed
        )

    def load_test(self) -> ImageSet:
        """Loads the test images alone; ``train`` may be missing if ``test`` is there."""
        if self.train is not None or self.test is None or self.name not in ("omniglot", "folder"):
            return self.load(seed=0).test
        load = load_omniglot if self.name == "omniglot" else load_folder
        return load(self.test, **self._given("image_size", "channels"))

    def like_checkpoint(self, checkpoint: Checkpoint) -> DataSource:
        """Fills in the image size and channels that a trained model needs.

        Raises:
            ValueError: If another number of channels is asked for.
        """
        if self.channels not in (None, checkpoint.in_channels):
            raise ValueError(f"channels: the model takes images of {checkpoint.in_channels}, got {self.channels}")
        return replace(self, image_size=self.image_size or checkpoint.image_size, channels=checkpoint.in_channels)

    def describe(self) -> dict[str, Any]:
        """Returns the arguments as the checkpoint keeps them."""
        return asdict(self)

    def arguments(self) -> dict[str, Any]:
        """Returns the options of the command line that say the same."""
        return {"data": self.name, **{name: value for name, value in self.describe().items() if name != "name"}}

    @classmethod
    def described(cls, data: Mapping[str, Any]) -> DataSource:
        """Returns the source that :meth:`describe` described.

        Raises:
            ValueError: If the description is not one of ours.
        """
        try:
            return cls(**data)
        except TypeError:
            raise ValueError("data: the checkpoint does not say what it was trained on, name it with --data") from None

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
