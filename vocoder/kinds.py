"""Of which kind a config value is: strictly, as a misread value trains something else."""

import math
import types
import typing

from vocoder.errors import InputError

LARGEST = 2**31 - 1  # of whole numbers; TensorFlow's shapes and NumPy's counts end here


def checked(value, kind, key: str):
    """`value` as one of `kind`.

    Whole numbers may be written as `1e6`, and numbers and bools as texts, as the environment has
    them.

    Args:
        value: Plain data.
        kind: `int`, `float`, `bool`, `str`, `list` of one of them, or one of all these or None.
        key: Where it stands in the config, for messages.

    Raises:
        InputError: It is of another kind, or a whole number is larger than `LARGEST`.
    """
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
    if typing.get_origin(kind) is list:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{key}: must be a list, such as [a,b], not {value!r}")
        (inner,) = typing.get_args(kind)
        return [checked(each, inner, f"{key}.{i}") for i, each in enumerate(value)]
    if kind is str:
        if not isinstance(value, str):
            quoted = "" if _number(value) is None else f"; quoted twice it is one: '{key}=\"...\"'"
            raise InputError(f"{key}: must be a text, not {value!r}{quoted}")
        return value
    if kind is bool:
        if not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
            raise InputError(f"{key}: must be true or false, not {value!r}")
        return str(value).lower() == "true"
    number = _number(value)
    if kind is float:
        if number is None:
            raise InputError(f"{key}: must be a number, not {value!r}")
        return float(number)
    if number is None or not math.isfinite(number) or number != int(number):
        raise InputError(f"{key}: must be a whole number, not {value!r}")
    if abs(number) > LARGEST:
        raise InputError(f"{key}: must be at most {LARGEST}, not {value!r}")
    return int(number)


def _number(value) -> int | float | None:
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def like(value, example, key: str):
    """`value` as one of the kind of an example, such as an argument's default.

    Args:
        value: Plain data.
        example: A number or a bool; a text, beside which None and lists of texts pass; a tuple,
            whose first element is the example for all of the value's. Anything else says nothing
            but that numbers must be finite and not too large.
        key: Where the value stands in the config, for messages.

    Raises:
        InputError: It is of another kind, not finite, or larger than `LARGEST`.
    """
    if isinstance(example, tuple):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{key}: must be a list, such as [a,b], not {value!r}")
        return [like(each, example[0], f"{key}.{i}") for i, each in enumerate(value)]
    if isinstance(example, str):
        return checked(value, (list[str] if isinstance(value, (list, tuple)) else str | None), key)
    if isinstance(example, (bool, int, float)):
        value = checked(value, type(example), key)
    check_finite(value, key)
    return value


def check_finite(value, key: str) -> None:
    """Raises `InputError` if plain data holds NaN, infinity or a whole number above `LARGEST`."""
    if isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            check_finite(each, f"{key}.{i}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key}: must be a finite number, not {value}")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(f"{key}: must be at most {LARGEST}, not {value}")
