"""Reads the boxes of chosen images of a COCO file, and counts the annotations that are no boxes.

Memory holds the chosen boxes.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import Conflict, InvalidRequest
from serve_app.sources.coco import identity
from serve_app.sources.json_arrays import entries

OUTSIDE = "whose box has no part inside the image"


class Chosen(NamedTuple):
    """An image to write."""

    file_name: str
    split: str | None


class Boxes:
    """The boxes of the chosen images of a COCO file, and all of its classes, in the order of the file.

    Attributes:
        classes: the names of the categories, by id.
        left_out: how many annotations of chosen images have no usable box, by reason.
        stripped: the file names of images with annotations of which no box is left; nobody knows what is on them.
    """

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self.stripped: set[str] = set()
        self._sizes: dict[str, tuple[float, float]] = {}
        self._numbers: dict[str, int] = {}
        self._category_numbers: dict[str, int] = {}
        self._images, self._categories, self._sides = array("q"), array("q"), array("d")

    @classmethod
    def read(cls, path: Path, chosen: Mapping[str, Chosen]) -> Self:
        """Read a COCO file.

        Args:
            path: the file.
            chosen: the images to read the boxes of, by sample id. Several ids may name one file.

        Raises:
            InvalidRequest: the file cannot be read, no chosen image has a box, or one with boxes has no size.
            Conflict: the file lacks a chosen image.
        """
        found = cls()
        for section, entry in entries(path):
            if not isinstance(entry, dict):
                continue
            if section == "categories" and (category_id := identity(entry.get("id"))) is not None:
                found.classes.setdefault(category_id, str(entry.get("name") or category_id))
            elif section == "images" and (image_id := identity(entry.get("id"))) in chosen:
                found._sizes.setdefault(str(image_id), (_number(entry.get("width")), _number(entry.get("height"))))
            elif section == "annotations":
                found._add(entry, chosen)
        found._require_sizes(path, chosen)
        found._leave_out_what_lies_outside(chosen)
        if not found._images:
            why = "".join(f"; {number:,} annotations {reason}" for reason, number in found.left_out.items())
            raise InvalidRequest(f"no chosen image has a box ('bbox') in {path.name!r}{why}; export coco or list")
        for category_id in found._category_numbers:
            found.classes.setdefault(category_id, category_id)
        return found

    def _add(self, entry: dict[str, Any], chosen: Mapping[str, Chosen]) -> None:
        """Take an annotation with a box, or count why it has none; those of crowds are regions and no objects."""
        image_id, category_id = identity(entry.get("image_id")), identity(entry.get("category_id"))
        if image_id is None or image_id not in chosen:
            return
        if category_id is None or (reason := _refusal(entry)):
            self.left_out["without a category ('category_id')" if category_id is None else reason] += 1
            self.stripped.add(chosen[image_id].file_name)
            return
        self._images.append(self._numbers.setdefault(image_id, len(self._numbers)))
        self._categories.append(self._category_numbers.setdefault(category_id, len(self._category_numbers)))
        self._sides.extend(map(float, entry["bbox"]))

    def _require_sizes(self, path: Path, chosen: Mapping[str, Chosen]) -> None:
        """Refuse images that the file lacks, or that have boxes and no size."""
        if missing := len(chosen) - len(self._sizes):
            raise Conflict(f"{path.name!r} has changed since it was scanned: {missing:,} images are gone; rescan")
        for image_id in self._numbers:
            if min(self._sizes[image_id]) <= 0:
                name = chosen[image_id].file_name
                raise InvalidRequest(
                    f"{path.name!r} says no width and height of {name!r}; YOLO's boxes are parts of them"
                )

    def _leave_out_what_lies_outside(self, chosen: Mapping[str, Chosen]) -> None:
        """Drop boxes of no area inside their images, and keep the names of images that have others as `stripped`."""
        images, sides = np.array(self._images), np.array(self._sides).reshape(-1, 4)
        sizes = np.array([self._sizes[image_id] for image_id in self._numbers]).reshape(-1, 2)[images]
        least, most = np.clip(sides[:, :2], 0, sizes), np.clip(sides[:, :2] + sides[:, 2:], 0, sizes)
        seen = (most > least).all(axis=1)
        names = [chosen[image_id].file_name for image_id in self._numbers]
        self.stripped |= {names[number] for number in np.unique(images[~seen])}
        self.stripped -= {names[number] for number in np.unique(images[seen])}
        if outside := int((~seen).sum()):
            self.left_out[OUTSIDE] += outside
        self._images, self._sides = array("q", images[seen]), array("d", sides[seen].ravel())
        self._categories = array("q", np.array(self._categories)[seen])

    def texts(self, chosen: Mapping[str, Chosen]) -> Iterator[tuple[str, str]]:
        """The file name of each image that has boxes, and its lines: class, middle x and y, width, height; parts of 1.

        A file that several ids name has the lines of all.
        """
        place = {category_id: number for number, category_id in enumerate(self.classes)}
        classes = np.array([place[category_id] for category_id in self._category_numbers])[np.array(self._categories)]
        images, sides = np.array(self._images), np.array(self._sides).reshape(-1, 4)
        order = np.argsort(images, kind="stable")
        starts = np.searchsorted(images[order], np.arange(len(self._numbers) + 1))
        ids: dict[str, list[tuple[str, int]]] = {}
        for image_id, number in self._numbers.items():
            ids.setdefault(chosen[image_id].file_name, []).append((image_id, number))
        for name, named in ids.items():
            parts = [(image_id, order[starts[number] : starts[number + 1]]) for image_id, number in named]
            yield name, "".join(_lines(classes[rows], sides[rows], self._sizes[image_id]) for image_id, rows in parts)


def _refusal(entry: dict[str, Any]) -> str:
    """Why an annotation has no usable box, or an empty text."""
    sides = entry.get("bbox")
    if entry.get("iscrowd"):
        return "of crowds ('iscrowd')"
    if sides is None or sides == []:
        return "without a box ('bbox'), such as polygons alone"
    if not isinstance(sides, list) or len(sides) != 4 or not all(_number(side) == side for side in sides):
        return "whose box is not four numbers"
    return "whose box has no width or height above 0" if min(sides[2:]) <= 0 else ""


def _lines(classes: NDArray[np.int64], sides: NDArray[np.float64], size: tuple[float, float]) -> str:
    """The lines of (n,) classes and (n, 4) boxes in pixels, of which what lies inside the image counts."""
    least = np.clip(sides[:, :2], 0, size) / size
    most = np.clip(sides[:, :2] + sides[:, 2:], 0, size) / size
    rows = np.column_stack([(least + most) / 2, most - least])
    numbers = [" ".join(f"{part:.8f}" for part in row) for row in rows.tolist()]
    return "".join(f"{name} {row}\n" for name, row in zip(classes.tolist(), numbers, strict=True))


def _number(value: object) -> float:
    """A number of pixels; 0 for anything else. Numbers beyond any image's are none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if is_number else 0.0  # type: ignore[arg-type]
