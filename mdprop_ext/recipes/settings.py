"""Hyper-parameters from text: ``key=value`` pairs onto frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def apply_settings(configs: Sequence[Any], settings: Iterable[str]) -> tuple[Any, ...]:
    """Replaces fields of several configurations, whose fields have different names.

    Values are read by the type of the field. Numbers may be fractions such as ``16/255``; a field that may be None
    takes ``none``.

    Args:
        configs: Frozen dataclasses.
        settings: ``key=value`` each; of equal keys the last one counts.

    Returns:
        The configurations with the new values, in the same order.

    Raises:
        ValueError: If a pair is malformed, a key is unknown (the message names the nearest one), or a value does not
            suit its field.

    Example:
        >>> apply_settings([MDPropConfig()], ["eps=8/255", "mt_targets=3"])
        (MDPropConfig(eps=0.03137254901960784, attack_steps=1, mt_targets=3, loss='joint'),)
    """
    owners = {field.name: index for index, config in enumerate(configs) for field in dataclasses.fields(config)}
    changes: list[dict[str, Any]] = [{} for _ in configs]
    for setting in settings:
        key, separator, text = (part.strip() for part in setting.partition("="))
        if not (key and separator and text):
            raise ValueError(f"set: expected key=value, got {setting!r}")
        if key not in owners:
            raise ValueError(f"set: unknown key {key!r}, did you mean {nearest_name(key, owners)!r}?")
        owner = owners[key]
        changes[owner][key] = parse_value(key, text, get_type_hints(type(configs[owner]))[key])
    return tuple(dataclasses.replace(config, **new) for config, new in zip(configs, changes, strict=True))


def parse_value(name: str, text: str, kind: Any) -> Any:
    """Reads a value from text.

    Args:
        name: Name of the field, for messages.
        text: What the user wrote.
        kind: The field's type: bool, int, float, str, a Literal of strings, or one of them or None.

    Returns:
        The value.

    Raises:
        ValueError: If the text is not such a value.
    """
    if get_origin(kind) in (Union, UnionType):
        if text.lower() == "none":
            return None
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}: expected true or false, got {text!r}")
        return text.lower() == "true"
    if kind is int:
        return _number(name, text, "an integer", int)
    if kind is float:
        return _number(name, text, "a number", _fraction)
    if get_origin(kind) is Literal and text not in get_args(kind):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(kind))}, got {text!r}")
    return text


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Returns the one of ``names`` that looks most like ``name``."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def _number(name: str, text: str, expected: str, read: Any) -> Any:
    try:
        return read(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}: expected {expected}, got {text!r}") from None


def _fraction(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / (float(denominator) if denominator else 1.0)
