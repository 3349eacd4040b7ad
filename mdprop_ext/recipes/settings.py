"""Hyper-parameters from text: ``key=value`` pairs and configuration files onto frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mdprop_ext._words import did_you_mean

#: What fields of configurations are commonly called elsewhere.
_CUSTOMARY_NAMES = MappingProxyType(
    {"lr": ("learning_rate",), "batch_size": ("classes_per_batch", "images_per_class"), "epsilon": ("eps",)}
)


def apply_settings(configs: Sequence[Any], settings: Iterable[str], *, also: Iterable[str] = ()) -> tuple[Any, ...]:
    """Replaces fields of several configurations, whose fields have different names.

    Values are read by the type of the field. Numbers may be fractions such as ``16/255``; a field that may be None
    takes ``none``.

    Args:
        configs: Frozen dataclasses.
        settings: ``key=value`` each; of equal keys the last one counts.
        also: Keys that are known elsewhere, see :func:`apply_values`.

    Returns:
        The configurations with the new values, in the same order.

    Raises:
        ValueError: If a pair is malformed, a key is unknown (the message names the likely one, or all), or a value does
            not suit its field.

    Example:
        >>> apply_settings([MDPropConfig()], ["eps=8/255", "mt_targets=3"])
        (MDPropConfig(eps=0.03137254901960784, attack_steps=1, mt_targets=3, loss='joint'),)
    """
    values: dict[str, str] = {}
    for setting in settings:
        key, separator, text = (part.strip() for part in setting.partition("="))
        if not (key and separator and text):
            raise ValueError(f"set: expected key=value, got {setting!r}")
        values[key] = text
    return apply_values(configs, values, origin="set", also=also)


def apply_values(
    configs: Sequence[Any], values: Mapping[str, Any], *, origin: str, also: Iterable[str] = ()
) -> tuple[Any, ...]:
    """Replaces fields of several configurations, whose fields have different names.

    Args:
        configs: Frozen dataclasses.
        values: New values by field; text is read as by :func:`apply_settings`.
        origin: Where the values come from, for messages.
        also: Keys that are known elsewhere, which an unknown one may stand for too.

    Returns:
        The configurations with the new values, in the same order.

    Raises:
        ValueError: If a key is unknown (the message names the likely one, or all), or a value does not suit its field.
    """
    owners = {field.name: index for index, config in enumerate(configs) for field in dataclasses.fields(config)}
    changes: list[dict[str, Any]] = [{} for _ in configs]
    for key, value in values.items():
        if key not in owners:
            raise unknown_key(key, {*owners, *also}, origin=origin)
        owner = owners[key]
        changes[owner][key] = read_value(key, value, get_type_hints(type(configs[owner]))[key])
    return tuple(dataclasses.replace(config, **new) for config, new in zip(configs, changes, strict=True))


def read_value(name: str, value: Any, kind: Any) -> Any:
    """Reads the value of a field, from text or as a configuration file has it.

    Args:
        name: Name of the field, for messages.
        value: Text, a number, a truth value or None.
        kind: The field's type: bool, int, float, str, a Literal of strings, or one of them or None.

    Returns:
        The value.

    Raises:
        ValueError: If the value is not of this type.
    """
    if get_origin(kind) in (Union, UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
    if kind is bool:
        return _truth(name, value)
    if kind is int:
        return _number(name, value, "an integer", int, int)
    if kind is float:
        return _number(name, value, "a number", _fraction, int | float)
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(kind))}, got {value!r}")
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {value!r}")
    return value


def unknown_key(key: str, known: Collection[str], *, origin: str) -> ValueError:
    """Returns the error for a key that is not among the known ones; it names the likely one, or all.

    Args:
        key: The unknown key.
        known: All others.
        origin: Where it comes from.
    """
    customary = [name for name in _CUSTOMARY_NAMES.get(key, ()) if name in known]
    hint = f", did you mean {' and '.join(map(repr, customary))}?" if customary else did_you_mean(key, known)
    return ValueError(f"{origin}: unknown key {key!r}{hint or ': expected one of ' + ', '.join(sorted(known))}")


def _truth(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")
    return value


def _number(name: str, value: Any, expected: str, read: Any, accepted: Any) -> Any:
    error = ValueError(f"{name}: expected {expected}, got {value!r}")
    if isinstance(value, str):
        try:
            return read(value)
        except (ValueError, ZeroDivisionError):
            raise error from None
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise error
    return read(str(value))


def _fraction(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    return float(numerator) / float(denominator) if slash else float(numerator)
