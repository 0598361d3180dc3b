"""Every reason for which an image is skipped has a verdict: the sources are read for what they raise and record."""

import ast
from pathlib import Path

import pytest

from serve_app.sources import files, remote
from serve_app.store import skip_reasons
from serve_app.store.skip_reasons import VERDICTS, objections

SERVE_APP = Path(skip_reasons.__file__).parents[1]

OF_IMPORTS = ("store/imports.py", "jobs/vector_file.py")
"""They skip rows of a file of vectors, which say nothing about images."""

COMPUTED = {
    ("sources/files.py", "reason"): set(files._DETAILS),
    ("sources/remote.py", "reason"): set(remote._DETAILS),
    ("images/decode.py", "_damage(error, data)"): {"truncated", "corrupt"},
}
"""The reasons that are not written out where they are raised."""


def calls():
    """Each call of `RefusedImage` or `Skip` that makes an image's skip, with its file below `serve_app`."""
    for path in sorted(SERVE_APP.rglob("*.py")):
        name = str(path.relative_to(SERVE_APP))
        if name in OF_IMPORTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                if node.func.id == "RefusedImage":
                    yield name, node.args[0]
                elif node.func.id == "Skip" and len(node.args) == 4:
                    yield name, node.args[2]


def constant_of(path, name):
    """The text of a module's constant."""
    for node in ast.parse((SERVE_APP / path).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no constant {name}")


def reasons_of(path, text):
    """The reasons that one call can give."""
    if isinstance(text, ast.Name):
        text = ast.Constant(constant_of(path, text.id))
    if isinstance(text, ast.JoinedStr):
        text = text.values[0]
    if isinstance(text, ast.FormattedValue):
        return COMPUTED[path, ast.unparse(text.value)]
    return {text.value.partition(":")[0]}


def test_every_reason_has_a_verdict_and_every_verdict_a_reason():
    found = {reason for path, text in calls() for reason in reasons_of(path, text)}
    found |= set(files._REASONS.values())
    assert found == set(VERDICTS)


@pytest.mark.parametrize("reason", sorted(VERDICTS))
def test_only_failures_that_blame_no_image_keep_the_set(reason):
    kept = VERDICTS[reason] != "image"
    assert objections({reason: 18}, 20) == ({reason: 18} if kept else {})
    assert objections({reason: 10}, 20) == {}


def test_failures_of_several_reasons_count_together_and_the_most_frequent_is_named_first():
    skips = {"corrupt": 9, "not_found": 4, "io_error": 7}
    assert list(objections(skips, 20).items()) == [("io_error", 7), ("not_found", 4)]


def test_a_reason_that_nobody_has_judged_blames_no_image():
    assert objections({"of a later version": 3}, 4) == {"of a later version": 3}
