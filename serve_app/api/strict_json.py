"""Checks JSON by RFC 8259, and refuses what `json.loads` accepts beyond it.

`json.loads` turns `NaN`, `Infinity` and `1e400` into values that no answer can carry, accepts lone surrogates, which
cannot be stored, and silently keeps the last of duplicate keys.
"""

import json
import math
import re
from typing import NoReturn

from serve_app.errors import InvalidRequest, MalformedJson

MAX_VALUES = 5000
"""No route takes more than some thousand values; a parser, and above all a list of errors, costs time for each."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string of JSON; one that is not closed ends with the body."""


def check(body: bytes) -> None:
    """Check that a body is strict JSON.

    Raises:
        MalformedJson: the body is not strict JSON; the message says why.
        InvalidRequest: the body may hold more than `MAX_VALUES` values, and is not parsed; or a text spells a lone
            surrogate, which JSON's grammar allows.
    """
    if body.count(b",") > MAX_VALUES and _STRING.sub(b"", body).count(b",") > MAX_VALUES:
        raise InvalidRequest(f"The body holds more than {MAX_VALUES} values.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 (byte {error.start}).") from None
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys
        )
        # Escaped lone surrogates survive parsing, but encoding the value fails on them.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None
    except UnicodeEncodeError:
        raise InvalidRequest("A text holds a lone surrogate, which is no character.") from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"The body is not JSON: {error.msg} (character {error.pos}).") from None
    except ValueError:
        # CPython refuses integers of more than 4300 digits.
        raise MalformedJson("The body holds a number with too many digits.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON.")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedJson("The body holds a number that no double can represent.")
    return number


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise MalformedJson("The body names a key twice.")
    return value
