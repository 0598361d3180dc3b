"""The filter language: its answers are DuckDB's own, and what is no filter is refused at its place."""

from datetime import datetime

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app.errors import InvalidFilter
from serve_app.store import filtering, where
from serve_app.store.where_nodes import Column

TYPES = {"name": "text", "word": "text", "width": "number", "height": "number", "crowd": "boolean", "taken": "time"}
COLUMNS = {name: Column(name, kind, f"t.{name}") for name, kind in TYPES.items()}
TAGGED = COLUMNS | {
    "tag": Column("tag", "tag", "t.n IN (SELECT n FROM tags WHERE owner = ? AND {})", ("me",)),
    "my column": Column("my column", "number", "t.width"),
}
SQL_TYPES = {"text": "VARCHAR", "number": "DOUBLE", "boolean": "BOOLEAN", "time": "TIMESTAMP"}

texts = st.text(st.sampled_from("aAbBéßΣ%_ '\"\\\n☃𝄞"), max_size=4)
numbers = st.sampled_from([-2.5, -1.0, 0.0, 0.1, 1.0, 1e300, 3.0]) | st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
values = {"text": texts, "number": numbers, "boolean": st.booleans(), "time": times}
rows = st.lists(st.tuples(*(st.none() | values[kind] for kind in TYPES.values())), max_size=8)


def spelled(kind, value):
    """A value as an SQL literal."""
    if kind == "text":
        return "'" + value.replace("'", "''") + "'"
    if kind == "time":
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    return str(value)


@st.composite
def predicates(draw):
    """One comparison of a column, of every kind that there is."""
    name, kind = draw(st.sampled_from(sorted(TYPES.items())))
    kinds = ["sign", "swapped", "column", "null", "in", "between"]
    kinds += ["like"] * 2 * (kind == "text") + ["alone"] * (kind == "boolean")
    value = values[kind].map(lambda value: spelled(kind, value))
    sign = draw(st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="]))
    no = draw(st.sampled_from(["", "NOT "]))
    match draw(st.sampled_from(kinds)):
        case "sign":
            return f"{name} {sign} {draw(value)}"
        case "swapped":
            return f"{draw(value)} {sign} {name}"
        case "column":
            other = draw(st.sampled_from([name for name, other in TYPES.items() if other == kind]))
            return f"{name} {sign} {other}"
        case "null":
            return f"{name} IS {no}NULL"
        case "in":
            return f"{name} {no}IN ({', '.join(draw(st.lists(value, min_size=1, max_size=3)))})"
        case "between":
            return f"{name} {no}BETWEEN {draw(value)} AND {draw(value)}"
        case "like":
            return f"{name} {no}{draw(st.sampled_from(['LIKE', 'ILIKE']))} {draw(value)}"
        case "alone":
            return name


filters = st.recursive(
    predicates(),
    lambda inner: st.one_of(
        inner.map("({})".format),
        inner.map("NOT ({})".format),
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(" ".join),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def database():
    with duckdb.connect() as connection:
        columns = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in TYPES.items())
        connection.execute(f"CREATE TABLE t (n BIGINT, {columns})")
        connection.execute("CREATE TABLE tags (n BIGINT, owner VARCHAR, tag VARCHAR)")
        yield connection


def fill(database, table):
    database.execute("DELETE FROM t")
    for n, row in enumerate(table):
        database.execute(f"INSERT INTO t VALUES (?{', ?' * len(TYPES)})", [n, *row])


def chosen(database, text, columns=COLUMNS):
    """The rows that a filter lets through, as the compiled condition finds them."""
    found = where.condition(text, columns)
    return database.execute(f"SELECT n FROM t WHERE {found.sql} ORDER BY n", list(found.values)).fetchall()


@given(rows, filters)
@example([("a", None, 1.0, 2.0, None, None)], "crowd = true OR NOT (word = 'a') AND name NOT LIKE '%b'")
@example([("it's", None, 0.0, None, True, None)], "name = 'it''s' AND NOT crowd OR width = -0.0")
def test_every_operator_answers_as_duckdb_does_with_the_text_itself(database, table, text):
    fill(database, table)
    expected = database.execute(f"SELECT n FROM t WHERE {text} ORDER BY n").fetchall()
    assert chosen(database, text) == expected


@settings(max_examples=8)  # each asks thirteen questions
@given(st.lists(st.lists(st.sampled_from(["keep", "kept", "Drop", "é"]), unique=True), max_size=4))
@example([["keep", "kept"], [], ["Drop"]])
def test_a_tag_is_had_or_not_and_never_null(database, tagged):
    fill(database, [(None,) * len(TYPES)] * len(tagged))
    database.execute("DELETE FROM tags")
    for n, tags in enumerate(tagged):
        for tag in tags:
            database.execute("INSERT INTO tags VALUES (?, 'me', ?), (?, 'other', 'all')", [n, tag, n])

    def with_tags(test):
        return [(n,) for n, tags in enumerate(tagged) if test(tags)]

    for text, test in {
        "tag = 'keep'": lambda tags: "keep" in tags,
        "'keep' = tag": lambda tags: "keep" in tags,
        "tag <> 'keep'": lambda tags: "keep" not in tags,
        "NOT tag = 'keep'": lambda tags: "keep" not in tags,
        "tag IN ('keep', 'é')": lambda tags: {"keep", "é"} & {*tags},
        "tag NOT IN ('keep', 'é')": lambda tags: not {"keep", "é"} & {*tags},
        "tag LIKE 'k%'": lambda tags: {"keep", "kept"} & {*tags},
        "tag NOT LIKE 'k%'": lambda tags: not {"keep", "kept"} & {*tags},
        "tag ILIKE 'DROP'": lambda tags: "Drop" in tags,
        "tag IS NULL": lambda tags: not tags,
        "tag IS NOT NULL": lambda tags: tags,
        "tag = 'keep' AND tag = 'kept'": lambda tags: {"keep", "kept"} <= {*tags},
        "tag = 'all'": lambda tags: False,
    }.items():
        assert chosen(database, text, TAGGED) == with_tags(test), text


def refused(text, columns=TAGGED):
    """The place and the message of the refusal of a filter."""
    with pytest.raises(InvalidFilter) as caught:
        where.condition(text, columns)
    return caught.value.position, caught.value.detail


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("widht > 5", 0, "there is no column 'widht'; did you mean 'width'? Columns: "),
        ("width > 5 AND\n hieght = 1", 15, "did you mean 'height'?"),
        ('name = "cat"', 7, "a text stands in single quotes"),
        ("name = 'é' AND wörd = 1", 15, "'wörd'"),
        ("t.width = 1", 0, "double quotes"),
        ("width > 'a'", 8, "'width' is a number, and this is text"),
        ("name = 5", 7, "'name' is text"),
        ("width IN (1, 'a')", 13, "'width' is a number"),
        ("crowd BETWEEN 1 AND 2", 14, "'crowd' is true or false"),
        ("taken > 'soon'", 8, "no time"),
        ("name = word AND name = width", 16, "is"),
        ("width", 0, "compare it with something"),
        ("1 = 1", 0, "a comparison needs a column"),
        ("'a'", 0, "has no place"),
        ("width = NULL", 0, "IS NULL"),
        ("width IS 5", 0, "IS NULL"),
        ("width LIKE 'a'", 0, "LIKE compares text"),
        ("name LIKE word", 10, "a value, not a column"),
        ("name IN ()", 0, "IN takes a list"),
        ("tag < 'a'", 0, "a tag is compared with"),
        ("tag BETWEEN 'a' AND 'b'", 0, "a tag is compared with"),
        ("tag = tag", 0, "is a tag"),
        ("tag = name", 0, "is"),
        ("width = 1e999", 8, "no double"),
        ("width = 1 AND", 10, "breaks off"),
        ("(width = 1", 9, "breaks off"),
        ("width = 1 height", 10, "breaks off"),
        ("name = 'cat", 7, "a quote is not closed"),
        ("name = 'it''s' AND \"wid", 19, "a quote is not closed"),
        ("", 0, "one boolean expression"),
        ("-- nothing", 0, "one boolean expression"),
    ],
)
def test_a_mistake_is_refused_at_its_place(text, position, message):
    place, detail = refused(text)
    assert message in detail
    assert place == position


@pytest.mark.parametrize(
    "text",
    [
        "width = 1; DROP TABLE t",
        "width = 1) OR (1 = 1",
        "name = '' OR 1=1 --'",
        "width = (SELECT max(width) FROM t)",
        "width IN (SELECT 1)",
        "EXISTS (SELECT 1)",
        "read_text('/etc/passwd') = name",
        "name = getenv('HOME')",
        "length(name) > 3",
        "width + 1 > 2",
        "name || 'a' = 'b'",
        "width::VARCHAR = '1'",
        "CAST(name AS INT) = 1",
        "TRY_CAST('2020-01-01' AS TIMESTAMP) < taken",
        "CASE WHEN crowd THEN true END",
        "name = $1",
        "name = ?",
        "name = :name",
        "name = $$a$$",
        "name = E'a'",
        "name = 'a' 'b'",
        "name LIKE 'a' ESCAPE '!'",
        "name LIKE ANY ('a', 'b')",
        "name SIMILAR TO 'a'",
        "name ~ 'a'",
        "name GLOB 'a'",
        "width BETWEEN SYMMETRIC 2 AND 1",
        "width IS DISTINCT FROM 1",
        "width = ANY (1)",
        "name[1] = 'a'",
        "name.length = 1",
        "name -> 'a' = 'b'",
        "{'a': 1} = name",
        "[1, 2] = name",
        "(width, height) = (1, 2)",
        "width = width = true",
        "x -> x",
        "name COLLATE NOCASE = 'a'",
        "taken > now()",
        "taken > CURRENT_TIMESTAMP",
        "taken > INTERVAL 1 DAY",
        "*",
        "COLUMNS('w.*') > 1",
        "rowid = 1",
        "t = 1",
        "ATTACH 'x.db'",
        "SELECT 1",
        "width = 0x1F",
        "width = 1 UNION SELECT 1",
        "1",
        "NULL",
        "width XOR height",
        "\x00",
        "name = 'a\x00' OR \x00",
    ],
)
def test_what_is_not_listed_is_refused(text):
    refused(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("name = 'Robert''); DROP TABLE t; --'", ("Robert'); DROP TABLE t; --",)),
        ("name = '? AND ?'", ("? AND ?",)),
        ("name = '{}' AND tag = '{0}'", ("{}", "me", "{0}")),
    ],
)
def test_a_text_reaches_the_database_as_a_bound_value_alone(text, values):
    found = where.condition(text, TAGGED)
    assert found.values == values
    assert "DROP" not in found.sql
    assert "'" not in found.sql


def test_names_are_found_in_any_case_and_with_blanks_in_quotes(database):
    fill(database, [("a", None, 7.0, None, None, None)])
    assert chosen(database, 'WIDTH = 7 AND "my column" = 7 AND "Name" = \'a\'', TAGGED) == [(0,)]


def test_a_condition_says_which_columns_it_reads():
    assert where.condition("WIDTH = 7 AND tag = 'a' OR crowd", TAGGED).names == {"width", "tag", "crowd"}


def test_times_are_utc_and_may_be_written_as_text(database):
    fill(database, [(None, None, None, None, None, datetime(2026, 1, 1, 12))])
    assert chosen(database, "taken = '2026-01-01T13:00:00+01:00' AND taken >= DATE '2026-01-01'") == [(0,)]
    assert chosen(database, "taken < '2026-01-01'") == []


def test_size_is_limited_in_characters_words_and_depth():
    long = filtering.MAX_CHARACTERS
    assert "characters" in refused("name = '" + "a" * long + "'")[1]
    assert "words and signs" in refused(" OR ".join(["crowd"] * 550))[1]
    assert "nested" in refused("(" * 25 + "crowd" + ")" * 25)[1]
    assert "nested" in refused("NOT " * 25 + "crowd")[1]
    for deep in ("(" * 3000, "NOT " * 1900, "[" * 3000, "CASE WHEN " * 300, "- " * 900 + "1 = width"):
        refused(deep)


def test_as_much_as_is_allowed_works(database):
    fill(database, [(None, None, 1.0, None, True, None)])
    assert chosen(database, " AND ".join(["crowd"] * 500)) == [(0,)]
    assert chosen(database, "(" * 24 + "crowd" + ")" * 24) == [(0,)]
    assert chosen(database, "NOT " * 24 + "crowd") == [(0,)]
    assert chosen(database, f"width IN ({', '.join(map(str, range(400)))})") == [(0,)]


WORDS = "width name tag ( ) = 'a' 1 , AND OR NOT IN LIKE BETWEEN IS NULL - . * ' \" CASE SELECT ; [ { -- /* :: $"
words = st.sampled_from(WORDS.split(" "))


@given(st.text(max_size=60) | st.lists(words, max_size=12).map(" ".join))
@example("width = 1 AND \ud800")
@example("name = '\ud800'")
def test_any_text_is_a_filter_or_refused_at_a_character_of_it(text):
    try:
        found = where.condition(text, TAGGED)
    except InvalidFilter as error:
        position = error.position
        found = None
    if found is None:
        assert 0 <= position <= len(text)
    else:
        assert found.sql.count("?") == len(found.values)
