"""The tree at the top of `serve_app/errors.py` against the classes below it."""

import re

from serve_app import errors
from tests.unit.error_tree import every_error

LINE = re.compile(r"( {4}[ │├└─]*)(\w+(?: · \w+)*)(?: (\d{3}))?")


def drawn(tree: str) -> dict[str, tuple[str, int]]:
    """Parent and status of each class by name; one that is drawn without a status has its parent's."""
    found: dict[str, tuple[str, int]] = {}
    above = [(0, "Exception")]
    for line in filter(None, map(LINE.match, tree.splitlines())):
        above = [(column, name) for column, name in above if column < len(line[1])]
        parent = above[-1][1]
        names = line[2].split(" · ")
        found |= {name: (parent, int(line[3]) if line[3] else found[parent][1]) for name in names}
        above.append((len(line[1]), names[-1]))
    return found


def test_the_tree_names_every_error_with_its_parent_and_its_status():
    classes = [each for each in every_error() if each.__module__ == errors.__name__]
    assert drawn(errors.__doc__ or "") == {each.__name__: (each.__base__.__name__, each.status) for each in classes}
