"""Values of options that need reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def listed(name: str, text: str, read: Callable[[str], T]) -> list[T]:
    """Reads values that commas separate.

    Args:
        name: Name of the option, for messages.
        text: The values, of which there must be one at least.
        read: Reads one of them, and raises ValueError where it cannot.

    Raises:
        ValueError: If there is no value, or ``read`` cannot read one.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        values = [read(part) for part in parts]
    except ValueError as error:
        if str(error).startswith(f"{name}: "):
            raise
        values = []
    if not values:
        raise ValueError(f"{name}: expected values separated by commas, got {text!r}")
    return values


def read_radius(text: str) -> float:
    """Reads a radius in 1/255: ``8`` and ``8/255`` are the same.

    Raises:
        ValueError: If it is no number from 0 to 255, or one between 0 and 1 that is not written as a fraction, which
            would hardly be meant in 1/255.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        # Rounded, so that 255 times the fraction is the number that was written.
        radius = round(255 * float(numerator) / float(denominator), 9) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"eps: expected radii in 1/255 such as 8 or 8/255, got {text!r}") from None
    if not 0 <= radius <= 255:
        raise ValueError(f"eps: expected a radius from 0 to 255, in 1/255, got {text}")
    if 0 < radius < 1 and not slash:
        raise ValueError(
            f"eps: expected a radius in 1/255, got {text}: write 8 for 8/255, or {text}/255 for less than 1"
        )
    return radius
