"""The filter language: turns the text of a `where` into an SQL condition whose literals are bound values.

A filter is a boolean SQL expression over columns: comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, ILIKE, IS NULL,
`inside(…)` for a polygon on the map, and literals of text, numbers, booleans and times. sqlglot parses it. Every node
is then checked and written anew, so no character of the text reaches the database. This module does not know where the
columns come from.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import Dialect, ErrorLevel, exp
from sqlglot.errors import ParseError, SqlglotError

from serve_app.store.filtering import MAX_CHARACTERS
from serve_app.store.where_nodes import Column, Translation, Value, refuse

if TYPE_CHECKING:
    from sqlglot.tokenizer_core import Token

MAX_TOKENS = 1_000
MAX_NESTING = 24
"""sqlglot recurses about 17 frames for a parenthesis, and Python allows 1,000 frames."""

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL condition with the values of its question marks in order, and what it reads.

    `names` are columns. `regions` are polygons of the map; the condition reads the samples in each from `REGION`.
    """

    sql: str
    values: tuple[Value, ...]
    names: frozenset[str]
    regions: tuple[tuple[tuple[float, float], ...], ...] = ()


def condition(text: str, columns: Mapping[str, Column]) -> Condition:
    """Translate a filter.

    Args:
        text: the filter, of at most `MAX_CHARACTERS`.
        columns: the columns that it may name, by name; no two names differ in upper and lower case alone.

    Raises:
        InvalidFilter: the text is no filter over these columns; the error says where and why.
    """
    translation = Translation(columns)
    sql, values = translation.condition(_parsed(text))
    return Condition(sql, values, frozenset(translation.names), tuple(translation.regions))


def _parsed(text: str) -> exp.Expr:
    if len(text) > MAX_CHARACTERS:
        refuse(MAX_CHARACTERS, f"a filter has at most {MAX_CHARACTERS:,} characters")
    dialect = Dialect.get_or_raise("duckdb")
    try:
        tokens = dialect.tokenize(text)
        _check_size(tokens)
        found = dialect.parser(error_level=ErrorLevel.IMMEDIATE).parse_into(exp.Condition, tokens, text)
    except ParseError as error:
        refuse(*_parse_error(text, error.errors[0] if error.errors else {}))
    except SqlglotError:
        refuse(_open_quote(text), "a quote is not closed, or a character cannot be read")
    except RecursionError:
        refuse(0, "the filter is nested too deeply")
    if len(found) != 1 or found[0] is None:
        refuse(0, "write one boolean expression")
    return found[0]


def _check_size(tokens: "Sequence[Token]") -> None:
    """Refuse what sqlglot would recurse into too deeply, before it does."""
    if len(tokens) > MAX_TOKENS:
        refuse(tokens[MAX_TOKENS].start, f"a filter has at most {MAX_TOKENS:,} words and signs")
    depth = run = 0
    for token in tokens:
        name = token.token_type.name
        depth += name.startswith("L_")
        depth -= name.startswith("R_")
        run = run + 1 if name == "NOT" else 0
        if depth > MAX_NESTING or run > MAX_NESTING:
            refuse(token.start, f"a filter is nested at most {MAX_NESTING} times")


def _parse_error(text: str, error: Mapping[str, object]) -> tuple[int, str]:
    """The place and the reason of sqlglot's error; it counts lines from 1, and columns to the end of a word."""
    highlight = str(error.get("highlight") or "")
    before = text.split("\n")[: int(str(error.get("line") or 1)) - 1]
    end = sum(len(line) + 1 for line in before) + int(str(error.get("col") or 0))
    position = max(0, min(end - len(highlight), len(text)))
    return position, f"the expression breaks off or cannot be read at {highlight[:40]!r}"


def _open_quote(text: str) -> int:
    """Where the quote stands that is not closed."""
    rest = _QUOTED.sub(lambda match: " " * len(match[0]), text)
    return next((place for place, character in enumerate(rest) if character in "'\""), 0)
