"""The work of ``mdprop attack``: attacked test images as files, and what they do to retrieval."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdprop_ext._arguments import check_integer
from mdprop_ext._files import check_output_folder, write_bytes, write_json
from mdprop_ext._optional import require
from mdprop_ext.cli.data_source import DataSource
from mdprop_ext.data import ImageSet
from mdprop_ext.data.png import decode_png, encode_png
from mdprop_ext.nn import branch_names
from mdprop_ext.recipes import AttackSetting, Checkpoint, embed, load_checkpoint
from mdprop_ext.recipes.attacked_images import attack_images, query_recall, spread_positions, to_pixels
from mdprop_ext.recipes.device import resolve_device

ATTACK_FILE = "attack.json"
_LEAST_IMAGES = 2  # targets are other images


@dataclass(frozen=True, eq=False, repr=False)
class AttackOutcome:
    """What attacks did, in the order of the images that were attacked.

    Args:
        summary: The content of ``attack.json``.
        images: All N test images, the gallery.
        positions: Places of the M attacked ones, int64 ``[M]``.
        gallery: Embeddings of the gallery ``[N, D]``.
        pixels: The written images by attack, ``uint8`` ``[M, C, H, W]``.
        embeddings: Their embeddings by attack, ``[M, D]``.
    """

    summary: dict[str, Any]
    images: ImageSet
    positions: Tensor
    gallery: Tensor
    pixels: dict[str, Tensor]
    embeddings: dict[str, Tensor]

    def __repr__(self) -> str:
        """Returns R@1 by attack."""
        recalls = {name: row["recall_at_1"] for name, row in self.summary["attacks"].items()}
        attacked = ", ".join(f"{name} {100 * recall:.1f} %" for name, recall in recalls.items())
        return f"AttackOutcome({len(self.positions)} of {self.images!r}: {attacked})"


def attack_checkpoint(
    folder: Path,
    out: Path,
    settings: Sequence[AttackSetting],
    *,
    source: DataSource | None = None,
    count: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    observe: Callable[[int, int], None] | None = None,
) -> AttackOutcome:
    """Attacks test images and writes them.

    Writes for each attack ``<attack>/<position>-<class>.png``, rounded to 8 bits towards the clean image, and
    ``<attack>.safetensors`` with the images as the attack made them; ``clean/`` and ``clean.safetensors`` with the
    originals; ``attack.json`` last. Recall is measured on the PNG files, read back.

    Args:
        folder: The checkpoint.
        out: Folder for the results; images of an earlier call in it are replaced.
        settings: The attacks, each name once, all of one radius, number of steps and branch.
        source: The images; None for the test images of the checkpoint's training run.
        count: Images to attack, spread over classes, at least 2; None for all. Targets are among them.
        seed: Of the attacks; None for the one of the training run.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``, where the model runs.
        observe: Called with the numbers of finished and of all attacks, at the start and after each of them.

    Returns:
        What the attacks did.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If checkpoint, data, branch, count or folder is wrong; nothing is written then.
    """
    check_output_folder(out)
    place = resolve_device(device)
    model, checkpoint = load_checkpoint(folder)
    model.to(place)
    _check_branch(model, settings[0].branch)
    source = DataSource.described(checkpoint.data) if source is None else source
    images = source.like_checkpoint(checkpoint).load_test()
    positions = _chosen(images.labels, count)
    seed = checkpoint.seed if seed is None else seed
    gallery = embed(model, images).cpu()
    summary = _summary(checkpoint, folder, source, settings[0], seed=seed, attacked=len(positions), images=images)
    summary["clean"] = {"recall_at_1": query_recall(gallery[positions], positions, gallery, images.labels)}
    outcome = AttackOutcome(summary, images, positions, gallery, pixels={}, embeddings={})
    for done, setting in enumerate(settings):
        if observe is not None:
            observe(done, len(settings))
        _attack(model, setting, outcome, out, seed=seed)
    if observe is not None:
        observe(len(settings), len(settings))
    _write_images(out, "clean", outcome, images.images[positions], images.floats(positions))
    write_json(out / ATTACK_FILE, summary)
    return outcome


def _attack(model: nn.Module, setting: AttackSetting, outcome: AttackOutcome, out: Path, *, seed: int) -> None:
    """Makes, writes and measures the images of one attack, and adds them to the outcome."""
    images, positions, gallery = outcome.images, outcome.positions, outcome.gallery
    chosen = ImageSet(images.images[positions], images.labels[positions], images.classes)
    floats = attack_images(model, chosen, setting, seed=seed)
    files = _write_images(out, setting.attack, outcome, to_pixels(floats, chosen.images, eps=setting.eps), floats)
    written = torch.stack([decode_png(path.read_bytes()) for path in files])
    rounded = embed(model, ImageSet(written, chosen.labels, chosen.classes)).cpu()
    outcome.pixels[setting.attack] = written
    outcome.embeddings[setting.attack] = rounded
    outcome.summary["attacks"][setting.attack] = {
        "targets": setting.targets,
        "recall_at_1": query_recall(rounded, positions, gallery, images.labels),
        "largest_change_255": int((written.short() - chosen.images.short()).abs().max()),
    }


def _write_images(out: Path, name: str, outcome: AttackOutcome, pixels: Tensor, floats: Tensor) -> list[Path]:
    """Writes images as PNG files, and as tensors without loss; the first call ends the results of an earlier run."""
    safetensors = require("safetensors.torch", extra="cli")
    images, positions = outcome.images, outcome.positions
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (out / ATTACK_FILE).unlink(missing_ok=True)
    for stale in _image_files(folder):
        stale.unlink()
    files = []
    for position, image in zip(positions.tolist(), pixels, strict=True):
        class_name = re.sub(r"[^0-9A-Za-z.]+", "_", images.classes[int(images.labels[position])])[:60]
        files.append(folder / f"{position:05d}-{class_name}.png")
        write_bytes(files[-1], encode_png(image))
    tensors = {"images": floats, "pixels": pixels, "labels": images.labels[positions], "positions": positions}
    write_bytes(
        out / f"{name}.safetensors", safetensors.save({key: value.contiguous() for key, value in tensors.items()})
    )
    return files


def _image_files(folder: Path) -> Iterator[Path]:
    return (path for path in list(folder.iterdir()) if re.fullmatch(r"\d{5,}-[0-9A-Za-z._]*\.png", path.name))


def _summary(
    checkpoint: Checkpoint,
    folder: Path,
    source: DataSource,
    setting: AttackSetting,
    *,
    seed: int,
    attacked: int,
    images: ImageSet,
) -> dict[str, Any]:
    return {
        "recipe": checkpoint.recipe,
        "seed": seed,
        "checkpoint": str(folder),
        "data": source.describe(),
        "images": attacked,
        "gallery": len(images),
        "norm": "linf",
        "eps_255": round(setting.eps * 255, 6),
        "steps": setting.steps,
        "branch": setting.branch,
        "rounding": "towards the clean image",
        "attacks": {},
    }


def _check_branch(model: nn.Module, branch: str) -> None:
    branches = branch_names(model) or ("main",)
    if branch not in branches:
        raise ValueError(f"branch: expected one of {', '.join(branches)}, got {branch!r}")


def _chosen(labels: Tensor, count: int | None) -> Tensor:
    if count is None:
        return torch.arange(len(labels))
    check_integer("count", count, least=_LEAST_IMAGES)
    if count > len(labels):
        raise ValueError(f"count: expected at most the {len(labels)} test images, got {count}")
    return spread_positions(labels, count)
