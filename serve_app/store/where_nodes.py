"""Checks each node of a parsed filter and writes it as SQL; what is not listed here is refused."""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NoReturn

from sqlglot import exp

from serve_app.errors import InvalidFilter

MAX_NAMES = 40
"""The number of column names in an error."""

REGION = "region_{}"
"""The table of the samples inside the n-th polygon of a filter."""

ColumnType = Literal["text", "number", "boolean", "time"]
Value = str | float | bool | datetime
Part = tuple[str, tuple[Value, ...]]
"""SQL with question marks, and their values in order."""

_Kind = type[exp.Expr]
_COMPARISONS: dict[_Kind, str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_PATTERNS: dict[_Kind, str] = {exp.Like: "LIKE", exp.ILike: "ILIKE"}
_TIMES = (exp.DType.TIMESTAMP, exp.DType.TIMESTAMPNTZ, exp.DType.TIMESTAMPTZ, exp.DType.DATE)
_WORDS = {"text": "text", "number": "a number", "boolean": "true or false", "time": "a time", "tag": "a tag"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a filter may name.

    `sql` is an expression of the type; it is NULL where a sample has no value. For the type "tag" it is a condition on
    the sample that is open for one more: `{}` stands for what is said about `tag`, and `values` are bound before it.
    """

    name: str
    type: ColumnType | Literal["tag"]
    sql: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class _Operand:
    """One side of a comparison; `column` is None for a literal."""

    node: exp.Expr
    type: str
    sql: str
    values: tuple[Value, ...] = ()
    column: Column | None = None


def refuse(position: int, message: str) -> NoReturn:
    """Raise `InvalidFilter` for what is wrong at a character of the filter, counted from 0."""
    raise InvalidFilter(f"{position}: {message}") from None


class Translation:
    """Translates nodes, and collects what they read: the names of columns in `names`, polygons in `regions`.

    The condition on the n-th polygon reads the table `REGION` with n in it, which the caller provides.

    Args:
        columns: the columns by name; no two names differ in upper and lower case alone.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = {name.casefold(): column for name, column in columns.items()}
        self.names: set[str] = set()
        self.regions: list[tuple[tuple[float, float], ...]] = []

    def condition(self, node: exp.Expr) -> Part:
        """A node that is true, false or NULL. Raises `InvalidFilter`."""
        if isinstance(node, exp.Column | exp.Boolean):
            operand = self._operand(node)
            if operand.type != "boolean":
                refuse(_place(node), f"{node.name!r} is {_WORDS[operand.type]}: compare it with something")
            return operand.sql, operand.values
        translate = _CONDITIONS.get(type(node))
        if translate is None:
            refuse(_place(node), f"{_shown(node)} has no place in a filter")
        return translate(self, node)

    def _inside(self, node: exp.Expr) -> Part:
        """`inside(x1, y1, x2, y2, …)`: the sample lies in this polygon of the map."""
        _only(node, "this", "expressions")
        if node.name.casefold() != "inside":
            refuse(_place(node), f"{node.name[:40]!r} is no function of a filter; the only one is inside(x1, y1, …)")
        operands = [self._operand(member) for member in node.expressions]
        for operand in operands:
            if operand.type != "number" or operand.column is not None:
                refuse(_place(operand.node), "inside takes the numbers x1, y1, x2, y2, …, the corners of a polygon")
        numbers = [float(operand.values[0]) for operand in operands if not isinstance(operand.values[0], datetime)]
        if len(numbers) % 2 or len(numbers) < 6:
            refuse(_place(node), "inside takes x and y of three corners or more")
        self.regions.append(tuple(zip(numbers[::2], numbers[1::2], strict=True)))
        return f"(s.sample_id IN (SELECT sample_id FROM {REGION.format(len(self.regions) - 1)}))", ()

    def _paren(self, node: exp.Expr) -> Part:
        _only(node, "this")
        return self.condition(node.this)

    def _not(self, node: exp.Expr) -> Part:
        _only(node, "this")
        sql, values = self.condition(node.this)
        return f"(NOT {sql})", values

    def _connector(self, node: exp.Expr) -> Part:
        # A chain of a thousand ANDs is a tree of that depth: it is walked without recursion.
        word = type(node).__name__.upper()
        rest, parts = [node], list[Part]()
        while rest:
            here = rest.pop()
            if type(here) is type(node):
                _only(here, "this", "expression")
                rest += [here.expression, here.this]
            else:
                parts.append(self.condition(here))
        return f"({f' {word} '.join(sql for sql, _ in parts)})", tuple(v for _, values in parts for v in values)

    def _comparison(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression")
        left, right = self._alike(self._operand(node.this), self._operand(node.expression))
        sign = _COMPARISONS[type(node)]
        for tag, other in ((left, right), (right, left)):
            if tag.type == "tag":
                if sign not in ("=", "<>"):
                    refuse(_place(node), "a tag is compared with =, <>, IN, LIKE or ILIKE")
                return _about_tag(tag, "tag = ?", other.values, negate=sign == "<>")
        return f"({left.sql} {sign} {right.sql})", left.values + right.values

    def _in(self, node: exp.Expr) -> Part:
        _only(node, "this", "expressions")
        left = self._operand(node.this)
        if not node.expressions:
            refuse(_place(node), "IN takes a list of values in parentheses")
        values: tuple[Value, ...] = ()
        for member in node.expressions:
            _, right = self._alike(left, self._operand(member), literal=True)
            values += right.values
        marks = ", ".join("?" * len(node.expressions))
        if left.type == "tag":
            return _about_tag(left, f"tag IN ({marks})", values)
        return f"({left.sql} IN ({marks}))", left.values + values

    def _between(self, node: exp.Expr) -> Part:
        _only(node, "this", "low", "high")
        middle = self._operand(node.this)
        if middle.type == "tag":
            refuse(_place(node), "a tag is compared with =, <>, IN, LIKE or ILIKE")
        low = self._alike(middle, self._operand(node.args["low"]))
        high = self._alike(middle, self._operand(node.args["high"]))
        sql = f"({middle.sql} BETWEEN {low[1].sql} AND {high[1].sql})"
        return sql, middle.values + low[1].values + high[1].values

    def _pattern(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression", "negate")
        left = self._operand(node.this)
        if left.type not in ("text", "tag"):
            refuse(_place(node), f"LIKE compares text, and {left.node.name!r} is {_WORDS[left.type]}")
        _, right = self._alike(left, self._operand(node.expression), literal=True)
        word, negate = _PATTERNS[type(node)], bool(node.args.get("negate"))
        if left.type == "tag":
            return _about_tag(left, f"tag {word} ?", right.values, negate=negate)
        return f"({left.sql} {'NOT ' if negate else ''}{word} ?)", left.values + right.values

    def _is_null(self, node: exp.Expr) -> Part:
        _only(node, "this", "expression")
        left = self._operand(node.this)
        if type(node.expression) is not exp.Null or left.column is None:
            refuse(_place(node), "IS is for columns: `width IS NULL`, `width IS NOT NULL`")
        if left.type == "tag":
            return _about_tag(left, "true", (), negate=True)
        return f"({left.sql} IS NULL)", left.values

    def _alike(self, left: _Operand, right: _Operand, *, literal: bool = False) -> tuple[_Operand, _Operand]:
        """Two operands of one type; a text that is compared with a time is read as one."""
        if literal and right.column is not None:
            refuse(_place(right.node), "here stands a value, not a column")
        if left.column is None and right.column is None:
            refuse(_place(left.node), "a comparison needs a column")
        if left.type == "time" and right.type == "text" and right.column is None:
            right = _time(right.node, str(right.values[0]))
        elif right.type == "time" and left.type == "text" and left.column is None:
            left = _time(left.node, str(left.values[0]))
        types = {left.type, right.type}
        is_tag = types == {"tag", "text"} and (left.column is None or right.column is None)
        if (len(types) > 1 and not is_tag) or types == {"tag"}:
            wrong, other = (right, left) if right.column is None else (left, right)
            name = other.node.name if other.column else "the other side"
            refuse(_place(wrong.node), f"{name!r} is {_WORDS[other.type]}, and this is {_WORDS[wrong.type]}")
        return left, right

    def _operand(self, node: exp.Expr) -> _Operand:
        while type(node) is exp.Paren:
            node = node.this
        if type(node) is exp.Column:
            column = self._column(node)
            return _Operand(node, column.type, column.sql, column.values, column)
        return _literal(node)

    def _column(self, node: exp.Expr) -> Column:
        if node.args.get("table") is not None or type(node.this) is not exp.Identifier:
            refuse(
                _place(node), f'{_shown(node)} is no column; a name with a dot or a sign stands in double quotes: "a.b"'
            )
        column = self._columns.get(node.name.casefold())
        if column is None:
            refuse(_place(node), self._unknown(node))
        self.names.add(column.name)
        return column

    def _unknown(self, node: exp.Expr) -> str:
        near = difflib.get_close_matches(node.name.casefold(), self._columns, n=1)
        hint = f"; did you mean {self._columns[near[0]].name!r}?" if near else "."
        if node.this.args.get("quoted"):
            hint += " (a text stands in single quotes)"
        names = [column.name for column in self._columns.values()]
        more = ", …" if len(names) > MAX_NAMES else ""
        return f"there is no column {node.name[:100]!r}{hint} Columns: {', '.join(names[:MAX_NAMES])}{more}"


_CONDITIONS: dict[_Kind, Callable[[Translation, exp.Expr], Part]] = {
    exp.Paren: Translation._paren,
    exp.Anonymous: Translation._inside,
    exp.And: Translation._connector,
    exp.Or: Translation._connector,
    exp.Not: Translation._not,
    exp.In: Translation._in,
    exp.Between: Translation._between,
    exp.Is: Translation._is_null,
    **dict.fromkeys(_COMPARISONS, Translation._comparison),
    **dict.fromkeys(_PATTERNS, Translation._pattern),
}


def _literal(node: exp.Expr) -> _Operand:
    match node:
        case exp.Boolean():
            return _Operand(node, "boolean", "?", (bool(node.this),))
        case exp.Literal() if node.is_string:
            return _Operand(node, "text", "?", (str(node.this),))
        case exp.Literal():
            return _Operand(node, "number", "?", (_number(node),))
        case exp.Neg(this=exp.Literal() as number) if not number.is_string:
            return _Operand(node, "number", "?", (-_number(number),))
        case exp.Cast(this=exp.Literal() as text) if (
            type(node) is exp.Cast and text.is_string and node.to.this in _TIMES
        ):
            return _time(node, str(text.this))
        case exp.Null():
            refuse(_place(node), "nothing equals NULL; write IS NULL or IS NOT NULL")
    refuse(_place(node), f"{_shown(node)} has no place in a filter; compare a column with a value")


def _number(node: exp.Expr) -> float:
    try:
        number = float(node.this)
    except ValueError:
        refuse(_place(node), f"{node.this[:40]!r} is no number")
    if not math.isfinite(number):
        refuse(_place(node), "no double can represent this number")
    return number


def _time(node: exp.Expr, text: str) -> _Operand:
    try:
        time = datetime.fromisoformat(text)
        naive = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        refuse(_place(node), f"{text[:40]!r} is no time; write one like '2026-11-26' or '2026-11-26 21:05:00'")
    return _Operand(node, "time", "?", (naive,))


def _about_tag(tag: _Operand, said: str, values: tuple[Value, ...], *, negate: bool = False) -> Part:
    """A condition on a sample's tags, never NULL: one of them is as said, or none is."""
    sql = f"({tag.sql.format(said)})"
    return f"(NOT {sql})" if negate else sql, tag.values + values


def _only(node: exp.Expr, *names: str) -> None:
    """Refuse a node with a part that this module does not translate."""
    for name, part in node.args.items():
        if name not in names and part:
            refuse(_place(node), f"{_shown(node)} has no place in a filter")


def _place(node: exp.Expr) -> int:
    """The first character of the first word below a node; sqlglot keeps places for names and literals alone."""
    return min((below.meta["start"] for below in node.walk() if "start" in below.meta), default=0)


def _shown(node: exp.Expr) -> str:
    return f"{type(node).__name__} {node.name[:40]!r}" if node.name else type(node).__name__
