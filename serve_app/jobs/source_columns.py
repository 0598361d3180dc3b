"""The columns of a dataset's source, gathered from its listing page by page, and typed at the end.

This module knows values and columns. It knows neither the files they come from nor the store.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from math import isinf, isnan

import pyarrow as pa
import pyarrow.compute as pc

from serve_app.jobs.column_file import EXACT, MAX_BYTES, MAX_TEXT, is_name, of_table
from serve_app.records import SourceFile
from serve_app.sources.listing import Untyped, shown
from serve_app.store.column_rows import FIXED, MAX_COLUMNS, GivenColumns

_TYPES = {
    "untyped": pa.string(),
    "text": pa.string(),
    "boolean": pa.bool_(),
    "whole": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("us"),
}
_NO_NUMBERS = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "none")
"""Words for a missing number or time."""
_LEADING_ZERO = r"^\s*[+-]?0\d"


class SourceColumns:
    """Values by column; memory holds them as Arrow, `MAX_BYTES` at most.

    What cannot be stored is left out, and `notices` says so: a registration does not fail because of a column.
    """

    def __init__(self) -> None:
        self._ids: list[pa.Array] = []
        self._parts: dict[str, list[tuple[int, str, pa.Array]]] = {}
        self._known: dict[str, bool] = {}
        self._left_out: dict[str, list[str]] = defaultdict(list)
        self._n_bytes = 0

    def take(self, page: list[SourceFile]) -> list[SourceFile]:
        """Keep the values of a page, and return the page without them."""
        if not any(file.values for file in page):
            return page
        number = len(self._ids)
        self._ids.append(pa.array([file.sample_id for file in page], pa.string()))
        for name in dict.fromkeys(name for file in page for name in file.values):
            if self._is_kept(name):
                self._add(name, number, [file.values.get(name) for file in page])
        while self._n_bytes > MAX_BYTES:
            self._drop_last()
        return [replace(file, values={}) if file.values else file for file in page]

    def gathered(self) -> GivenColumns | None:
        """The columns, each of one type; None if there are none. Call this once, and then `notices`."""
        columns = {name: self._column(name) for name in list(self._parts)}
        held = {name: values for name, values in columns.items() if values.null_count < len(values)}
        if not held:
            return None
        ids = pa.chunked_array(self._ids, pa.string())
        return of_table(pa.table({"sample_id": ids, **held})).given

    def notices(self) -> list[str]:
        """A sentence about each kind of thing that was left out or became text."""
        return [
            what.format(names=f"column{'s' if len(names) > 1 else ''} {shown(names)}")
            for what, names in self._left_out.items()
        ]

    def _is_kept(self, name: str) -> bool:
        if name not in self._known:
            reason = self._objection(name)
            self._known[name] = reason is None
            if reason is not None:
                self._left_out[f"left out: the {{names}}, {reason}"].append(name)
            else:
                self._parts[name] = []
        return self._known[name]

    def _objection(self, name: str) -> str | None:
        if name.casefold() in FIXED:
            return "whose values follow from the listing, tags or vectors; rename to keep"
        if not is_name(name):
            return "because columns have names of at most 100 printable characters"
        if name.casefold() in {kept.casefold() for kept in self._parts}:
            return "because another has the name but for upper and lower case"
        if len(self._parts) >= MAX_COLUMNS:
            return f"because a dataset has at most {MAX_COLUMNS} columns"
        return None

    def _add(self, name: str, number: int, cells: list[object]) -> None:
        kinds: set[str] = set()
        values = []
        for cell in cells:
            kind, value = _typed(cell)
            if kind in _UNUSABLE:
                self._note(f"left out: values of the {{names}} that are {_UNUSABLE[kind]}", name)
            elif kind:
                kinds.add(kind)
            values.append(value)
        kind = _common(kinds)
        if kind == "text" and kinds != {"text"}:
            values = [None if value is None else _text(value) for value in values]
        part = pa.array(values, _TYPES[kind])
        self._parts[name].append((number, "mixed" if kind == "text" and kinds != {"text"} else kind, part))
        self._n_bytes += _n_bytes(part)

    def _drop_last(self) -> None:
        name, parts = self._parts.popitem()
        self._known[name] = False
        self._n_bytes -= sum(_n_bytes(part) for _, _, part in parts)
        self._left_out[f"left out: the {{names}}; all columns take more than {MAX_BYTES // 2**20} MiB"].append(name)

    def _note(self, what: str, name: str) -> None:
        if name not in self._left_out[what]:
            self._left_out[what].append(name)

    def _column(self, name: str) -> pa.ChunkedArray:
        parts = {number: (kind, part) for number, kind, part in self._parts.pop(name)}
        kinds = {kind for kind, part in parts.values() if part.null_count < len(part)}
        kind = _common(kinds)
        if kind == "text" and kinds - {"text"}:
            self._note("the values of the {names} are of several types, so that all of them are texts", name)
        chunks = [
            parts[number][1].cast(_TYPES[kind]) if number in parts else pa.nulls(len(ids), _TYPES[kind])
            for number, ids in enumerate(self._ids)
        ]
        values = pa.chunked_array(chunks, _TYPES[kind])
        if kind == "untyped":
            return next(_readings(values))
        return next(_times(values), values) if kind == "text" else values


_UNUSABLE = {
    "nested": "lists, objects or bytes",
    "infinite": "infinite",
    "long": f"longer than {MAX_TEXT:,} characters",
    "broken": "not valid Unicode",
}


def _typed(cell: object) -> tuple[str, object]:
    """The kind of a cell, a key of `_TYPES` or `_UNUSABLE` or nothing, and its value or None."""
    match cell:
        case None | "":
            return "", None
        case bool():
            return "boolean", cell
        case int():
            return ("whole", cell) if -EXACT <= cell <= EXACT else ("text", str(cell)[:MAX_TEXT])
        case float() | Decimal():
            number = float(cell)
            return ("infinite", None) if isinf(number) else ("", None) if isnan(number) else ("number", number)
        case datetime():
            return "time", cell
        case str():
            if len(cell) > MAX_TEXT:
                return "long", None
            return ("untyped" if isinstance(cell, Untyped) else "text", cell) if _is_unicode(cell) else ("broken", None)
        case _:
            return "nested", None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _common(kinds: set[str]) -> str:
    """The kind that holds values of all these kinds."""
    if len(kinds) <= 1:
        return next(iter(kinds), "text") if kinds != {"mixed"} else "text"
    return "number" if kinds == {"whole", "number"} else "text"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _n_bytes(part: pa.Array) -> int:
    return max(int(part.nbytes), 8 * len(part))


def _readings(texts: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """What texts of a file without types may mean: numbers, truth values, times, and then the texts themselves.

    Numbers that begin with a zero, such as postal codes, and whole numbers that a double does not hold stay texts.
    """
    missing = pa.array(_NO_NUMBERS)  # not when this is imported: pyarrow's first array imports pandas
    plain = pc.if_else(pc.is_in(pc.utf8_trim_whitespace(texts), missing), None, pc.utf8_trim_whitespace(texts))
    if plain.null_count < len(plain):
        if not pc.any(pc.match_substring_regex(plain, _LEADING_ZERO)).as_py():
            yield from _numbers(plain)
        words = pc.utf8_lower(plain)
        if pc.all(pc.is_in(words.drop_null(), pa.array(["true", "false"]))).as_py():
            yield words.cast(pa.bool_())
        yield from _times(plain)
    yield texts


def _numbers(texts: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    try:
        whole = texts.cast(pa.int64())
        ends = pc.min_max(whole)
        if ends["min"].as_py() >= -EXACT and ends["max"].as_py() <= EXACT:
            yield whole
        return
    except pa.ArrowInvalid:
        pass
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return
    is_long = pc.any(pc.match_substring_regex(texts, r"^[+-]?\d{16,}$")).as_py()
    if not is_long and pc.all(pc.is_finite(numbers)).as_py():
        yield numbers


def _times(texts: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """The texts as times, UTC where they name a zone; nothing if one of them is no time of ISO 8601."""
    if pc.any(pc.match_substring_regex(texts, r"^\d{4}-\d\d-\d\d", ignore_case=False)).as_py():
        for zone in (None, "UTC"):
            try:
                yield texts.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us"))
                return
            except pa.ArrowInvalid:
                continue
