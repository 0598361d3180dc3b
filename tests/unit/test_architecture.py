"""The numbered lists of docs/architecture.md and docs/contributing.md name files and what they define: all exists.

In a step of such a list, what stands in backticks is a path or something that the Python file before it defines:
a function, a class, a constant, or `Class.member`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"^\d+\. .*$", re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")
PATH = re.compile(r"[\w./-]+\.(?:py|js|md|toml|txt|ya?ml)")


def missing(page: str) -> list[str]:
    """What the steps of a page name and what is not there: `path`, or `path name`."""
    return [word for step in STEP.findall(page) for word in _missing_in(step)]


def _missing_in(step: str) -> Iterator[str]:
    path, defined = "", set[str]()
    for word in QUOTED.findall(step):
        if PATH.fullmatch(word):
            path, defined = word, definitions(ROOT / word)
            if not (ROOT / word).is_file():
                yield word
        elif word not in defined:
            yield f"{path} {word}"


def definitions(file: Path) -> set[str]:
    """Names at the top of a Python file, and `Class.member`; none for another file."""
    if file.suffix != ".py" or not file.is_file():
        return set()
    body = ast.parse(file.read_text()).body
    members = (
        f"{parent.name}.{name}"
        for parent in body
        if isinstance(parent, ast.ClassDef)
        for node in parent.body
        for name in _names(node)
    )
    return {name for node in body for name in _names(node)} | set(members)


def _names(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


@pytest.mark.parametrize("name", ["architecture.md", "contributing.md"])
def test_everything_that_a_step_names_is_there(name: str):
    page = (ROOT / "docs" / name).read_text()
    assert len(STEP.findall(page)) > 20
    assert missing(page) == []


@pytest.mark.parametrize(
    ("step", "lacks"),
    [
        ("`serve_app/jobs/loop.py` `JobLoop._claim`, `PatientWriter`, `POLL_S`", []),
        ("`serve_app/jobs/loop.py` `JobLoop._claimed`", ["serve_app/jobs/loop.py JobLoop._claimed"]),
        ("`serve_app/jobs/loop.py` `_claim`", ["serve_app/jobs/loop.py _claim"]),
        ("`serve_app/loop.py` `JobLoop`", ["serve_app/loop.py", "serve_app/loop.py JobLoop"]),
        ("`README.md` `JobLoop`", ["README.md JobLoop"]),
        ("`JobLoop` `serve_app/jobs/loop.py`", [" JobLoop"]),
    ],
)
def test_a_name_that_was_changed_is_missed(step: str, lacks: list[str]):
    assert missing(f"1. Somebody does something: {step}.") == lacks
