"""Of which kind a value is: strictly, as a misread value trains something else.

Those of the config are pydantic's types, `Whole`, `Number`, `Flag` and `Text`; arguments of
networks and losses are checked by `like` where a config gives them, and by the `check_` functions
where a constructor does.
"""

import math
import numbers
import reprlib
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from vocoder.errors import InputError

LARGEST = 2**31 - 1  # of whole numbers; TensorFlow's shapes and NumPy's counts end here


def _whole(value):
    number = _number(value)
    if number is None or not math.isfinite(number) or number != int(number):
        raise ValueError(f"must be a whole number, not {value!r}")
    if abs(number) > LARGEST:
        raise ValueError(f"must be at most {LARGEST}, not {value!r}")
    return int(number)


def _float(value):
    number = _number(value)
    if number is None:
        raise ValueError(f"must be a number, not {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, not {value!r}")
    return float(number)


def _flag(value):
    if not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, not {value!r}")
    return str(value).lower() == "true"


def _text(value):
    if not isinstance(value, str):
        quoted = "" if _number(value) is None else "; quoted twice it is one: 'KEY=\"...\"'"
        raise ValueError(f"must be a text, not {value!r}{quoted}")
    return value


def _number(value) -> int | float | None:
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


# Whole numbers may be written as `1e6`, numbers and bools as texts, as the environment has them.
Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_float)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text)]

# What pydantic says in its own words, by the type of its error.
WORDS = {
    "greater_than_equal": "must be at least {ge}, not {input!r}",
    "greater_than": "must be above {gt}, not {input!r}",
    "less_than_equal": "must be at most {le}, not {input!r}",
    "less_than": "must be below {lt}, not {input!r}",
    "literal_error": "must be {expected}, not {input!r}",
    "list_type": "must be a list, such as [a,b], not {input!r}",
    "too_short": "must have {min_length} entries or more, not {input!r}",
    "too_long": "must have {max_length} entries at most, not {input!r}",
}


def checked(value, kind, key: str):
    """`value` as one of `kind`.

    Args:
        value: Plain data.
        kind: One of the types above, a list of one, or one of these or None.
        key: Where it stands in the config, for messages.

    Raises:
        InputError: It is of another kind, or out of its range.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        fault, *_ = error.errors(include_url=False)
        key = ".".join([key, *map(str, fault["loc"])])
        told = fault.get("ctx", {})
        if "error" in told:  # of the functions above
            text = str(told["error"]).replace("KEY=", f"{key}=")
        else:
            text = WORDS.get(fault["type"], fault["msg"]).format(**told, input=fault["input"])
        raise InputError(f"{key}: {text}") from error


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
        several = isinstance(value, (list, tuple))
        return checked(value, list[Text] if several else Text | None, key)
    for python, kind in {bool: Flag, int: Whole, float: Number}.items():
        if isinstance(example, python):
            return checked(value, kind, key)
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


def check_whole(name: str, value, least: int = 1, most: int | None = None) -> None:
    """Raises `ValueError("name: reason")` unless `value` is a whole number in that range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}: must be a whole number, not {reprlib.repr(value)}")
    _check_range(name, value, least, most)


def check_number(name: str, value, least: float | None = None, most: float | None = None) -> None:
    """Raises `ValueError("name: reason")` unless `value` is a finite number in that range."""
    of_kind = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not of_kind or not abs(value) < 1e30:
        raise ValueError(f"{name}: must be a finite number, not {reprlib.repr(value)}")
    _check_range(name, value, least, most)


def check_bool(name: str, value) -> None:
    """Raises `ValueError("name: reason")` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be true or false, not {reprlib.repr(value)}")


def check_list(name: str, values, most: int = 64) -> None:
    """Raises `ValueError("name: reason")` unless `values` are a list of one to `most`."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name}: must be a list, such as [a,b], not {reprlib.repr(values)}")
    if not 1 <= len(values) <= most:
        raise ValueError(f"{name}: there must be one to {most}, not {len(values)}")


def check_each(name: str, values, least: int = 1, most: int | None = None, count: int = 64) -> None:
    """Raises `ValueError("name: reason")` unless `values` are a list of whole numbers in range."""
    check_list(name, values, count)
    for value in values:
        check_whole(name, value, least, most)


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def check_precision(name: str, precision: str) -> None:
    """Raises `ValueError("name: reason")` unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"{name}: unknown {reprlib.repr(precision)} (known: {known})")


def either(*values: int, least: int = 1) -> str:
    """What would do in place of a value that doesn't: those of two that are large enough."""
    return " or ".join(str(value) for value in values if value >= least)


def _check_range(name, value, least, most):
    if least is not None and value < least:
        raise ValueError(f"{name}: must be at least {least}, not {value}")
    if most is not None and value > most:
        raise ValueError(f"{name}: must be at most {most}, not {reprlib.repr(value)}")
