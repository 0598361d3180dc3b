"""Writes what YOLO (Ultralytics) trains on, of the chosen images of a COCO file: boxes, lists of images, `data.yaml`.

YOLO looks for the boxes of `images/cat/1.png` in `labels/cat/1.txt`. So the lists name images in a folder `images`
beside them, which is a link to where the images are. Memory holds the chosen boxes.
"""

import json
from array import array
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import InvalidRequest
from serve_app.sources.coco import identity
from serve_app.sources.files import ESCAPE
from serve_app.sources.json_arrays import entries

IMAGES = "images/"
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The list of a value of the column `split`; images with another value, or none, are for training."""


class Chosen(NamedTuple):
    """An image to write."""

    file_name: str
    split: str | None


class Boxes:
    """The boxes of the chosen images of a COCO file, and all of its classes, in the order of the file."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}
        self._sizes: dict[str, tuple[float, float]] = {}
        self._numbers: dict[str, int] = {}
        self._category_numbers: dict[str, int] = {}
        self._images, self._categories, self._sides = array("q"), array("q"), array("d")

    @classmethod
    def read(cls, path: Path, chosen: Mapping[str, Chosen]) -> Self:
        """Read a COCO file.

        Args:
            path: the file.
            chosen: the images to read the boxes of, by sample id.

        Raises:
            InvalidRequest: the file cannot be read, no chosen image has a box, or one with boxes has no size.
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
        if not found._numbers:
            raise InvalidRequest(f"no chosen image has a box ('bbox') in {path.name!r}; export coco or list")
        for image_id in found._numbers:
            if min(found._sizes.get(image_id, (0.0, 0.0))) <= 0:
                name = chosen[image_id].file_name
                raise InvalidRequest(
                    f"{path.name!r} says no width and height of {name!r}; YOLO's boxes are parts of them"
                )
        for category_id in found._category_numbers:
            found.classes.setdefault(category_id, category_id)
        return found

    def _add(self, entry: dict[str, Any], chosen: Mapping[str, Chosen]) -> None:
        """Take an annotation with a box; those of crowds are regions and no objects."""
        image_id, category_id = identity(entry.get("image_id")), identity(entry.get("category_id"))
        sides = entry.get("bbox")
        if image_id is None or image_id not in chosen or category_id is None or entry.get("iscrowd"):
            return
        if not isinstance(sides, list) or len(sides) != 4 or not all(_number(side) == side for side in sides):
            return
        self._images.append(self._numbers.setdefault(image_id, len(self._numbers)))
        self._categories.append(self._category_numbers.setdefault(category_id, len(self._category_numbers)))
        self._sides.extend(map(float, sides))

    def texts(self) -> Iterator[tuple[str, str]]:
        """The id of each image that has boxes, and its lines: class, middle x and y, width, height; parts of 1."""
        place = {category_id: number for number, category_id in enumerate(self.classes)}
        classes = np.array([place[category_id] for category_id in self._category_numbers])[np.array(self._categories)]
        images, sides = np.array(self._images), np.array(self._sides).reshape(-1, 4)
        order = np.argsort(images, kind="stable")
        starts = np.searchsorted(images[order], np.arange(len(self._numbers) + 1))
        for number, image_id in enumerate(self._numbers):
            rows = order[starts[number] : starts[number + 1]]
            yield image_id, _lines(classes[rows], sides[rows], self._sizes[image_id])


def files(chosen: Mapping[str, Chosen], boxes: Boxes, root: str) -> Iterator[tuple[str, str]]:
    """The name and text of each file: `data.yaml`, a list of images for each split, and the labels.

    What is wrong is told at once, before the first file.

    Args:
        chosen: the images, by sample id.
        boxes: of these images. One without boxes gets an empty file, which says that nothing is on it.
        root: the folder or URL below which the file names lie.

    Raises:
        InvalidRequest: YOLO could not tell the labels of two images apart, or would not find them.
    """
    is_inside = all(image.file_name.startswith(IMAGES) for image in chosen.values())
    labels = _label_files(chosen, is_inside=is_inside)
    lists: dict[str, list[str]] = {}
    for image in chosen.values():
        name = image.file_name if is_inside else IMAGES + image.file_name
        lists.setdefault(SPLITS.get((image.split or "").lower(), "train"), []).append(f"./{name}\n")
    about = _yaml(list(boxes.classes.values()), lists, f"{root}/images" if is_inside else root)
    listed = [(f"{split}.txt", "".join(lines)) for split, lines in lists.items()]
    return chain([("data.yaml", about), *listed], _label_texts(labels, boxes))


def _label_texts(labels: dict[str, str], boxes: Boxes) -> Iterator[tuple[str, str]]:
    """The name and text of each file of labels; those of images without boxes are empty."""
    for image_id, text in boxes.texts():
        yield labels.pop(image_id), text
    yield from ((name, "") for name in labels.values())


def _label_files(chosen: Mapping[str, Chosen], *, is_inside: bool) -> dict[str, str]:
    """The file of labels of each image, by sample id."""
    taken: dict[str, str] = {}
    files: dict[str, str] = {}
    for sample_id, (name, _) in chosen.items():
        below = name.removeprefix(IMAGES) if is_inside else name
        if below.startswith(ESCAPE):
            raise InvalidRequest(f"the name of {name!r} is not valid Unicode, so no archive can hold its labels")
        if f"/{IMAGES}" in f"/{below}":
            raise InvalidRequest(f"YOLO would look for the labels of {name!r} inside its folders; export coco or list")
        file = str(PurePosixPath("labels", below).with_suffix(".txt"))
        if (other := taken.setdefault(file, name)) != name:
            raise InvalidRequest(f"{other!r} and {name!r} would share the labels {file!r}; export coco or list")
        files[sample_id] = file
    return files


def _yaml(classes: list[str], lists: Mapping[str, list[str]], images: str) -> str:
    """`data.yaml`; a JSON text is a YAML text, so quoting is JSON's."""
    lines = [f"# The folder images beside this file is a link: ln -s {json.dumps(images, ensure_ascii=False)} images"]
    lines += [f"{split}: {split}.txt" for split in ("train", "val", "test") if split in lists]
    if "train" not in lists or "val" not in lists:
        only = next(iter(lists), "train")
        lines += [f"{split}: {only}.txt  # no image has this split" for split in ("train", "val") if split not in lists]
    lines += ["names:", *(f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(classes))]
    return "\n".join(lines) + "\n"


def _lines(classes: NDArray[np.int64], sides: NDArray[np.float64], size: tuple[float, float]) -> str:
    """The lines of (n,) classes and (n, 4) boxes in pixels, of which what lies inside the image counts."""
    least = np.clip(sides[:, :2], 0, size) / size
    most = np.clip(sides[:, :2] + sides[:, 2:], 0, size) / size
    rows = np.column_stack([(least + most) / 2, most - least])
    seen = (most > least).all(axis=1)
    numbers = [" ".join(f"{part:.8f}" for part in row) for row in rows[seen].tolist()]
    return "".join(f"{name} {row}\n" for name, row in zip(classes[seen].tolist(), numbers, strict=True))


def _number(value: object) -> float:
    """A number of pixels; 0 for anything else. Numbers beyond any image's are none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if is_number else 0.0  # type: ignore[arg-type]
