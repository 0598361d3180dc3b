"""Writes what YOLO (Ultralytics) trains on, of the chosen images of a COCO file: boxes, lists of images, `data.yaml`.

YOLO looks for the boxes of `images/cat/1.png` in `labels/cat/1.txt`. So the lists name images in a folder `images`
beside them, which is a link to where the images are.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath

from serve_app.errors import InvalidRequest
from serve_app.sources.files import ESCAPE
from serve_app.sources.yolo_boxes import Boxes, Chosen

IMAGES = "images/"
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The list of a value of the column `split`; images without one are for training."""

_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no YAML text holds as it is, and line breaks."""

_INSTEAD = {"train": ("val", "test"), "val": ("train", "test")}
"""The lists that stand for one that is empty, the best first: YOLO wants both."""


def files(chosen: Mapping[str, Chosen], boxes: Boxes, root: str) -> Iterator[tuple[str, str]]:
    """The name and text of each file: `data.yaml`, a list of images for each split, and the labels.

    What is wrong is told at once, before the first file.

    Args:
        chosen: the images, by sample id. A file that several ids name is one image.
        boxes: of these images. An image without annotations gets an empty file, which says that nothing is on it; one
            whose annotations are all left out is in no list.
        root: the folder or URL below which the file names lie.

    Raises:
        InvalidRequest: YOLO could not tell the labels of two images apart, or would not find them; or two ids put a
            file into two splits, or a split has no list.
    """
    is_inside = all(image.file_name.startswith(IMAGES) for image in chosen.values())
    splits = _splits(chosen)
    for name in boxes.stripped:
        del splits[name]
    labels = {name: _label_file(name, is_inside=is_inside) for name in splits}
    _require_distinct(labels)
    lists: dict[str, list[str]] = {}
    for name, split in splits.items():
        lists.setdefault(split, []).append(f"./{name if is_inside else IMAGES + name}\n")
    about = _yaml(boxes, lists, f"{root}/images" if is_inside else root)
    listed = [(f"{split}.txt", "".join(lines)) for split, lines in lists.items()]
    return chain([("data.yaml", about), *listed], _label_texts(labels, boxes.texts(chosen)))


def _splits(chosen: Mapping[str, Chosen]) -> dict[str, str]:
    """The list of each image, by file name."""
    values = {value: (value or "").strip().casefold() or "train" for _, value in chosen.values()}
    if strange := sorted(repr(value) for value, split in values.items() if split not in SPLITS):
        more = f" and {len(strange) - 5:,} more" if len(strange) > 5 else ""
        raise InvalidRequest(
            f"the column 'split' has {', '.join(strange[:5])}{more}, and YOLO has lists of {', '.join(SPLITS)} alone; "
            "leave these images out with 'where', or put a column 'split' with these values"
        )
    first: dict[str, tuple[str, str]] = {}
    for sample_id, (name, value) in chosen.items():
        split = SPLITS[values[value]]
        other_id, other = first.setdefault(name, (sample_id, split))
        if split != other:
            raise InvalidRequest(
                f"the ids {other_id!r} and {sample_id!r} both name {name!r}, one for {other} and one for {split}; "
                "give them one split"
            )
    return {name: split for name, (_, split) in first.items()}


def _label_texts(labels: Mapping[str, str], texts: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The name and text of each file of labels; those of images without boxes are empty."""
    empty = dict(labels)
    for name, text in texts:
        if name in labels:
            yield empty.pop(name), text
    yield from ((file, "") for file in empty.values())


def _label_file(name: str, *, is_inside: bool) -> str:
    """The file of labels of an image."""
    below = name.removeprefix(IMAGES) if is_inside else name
    if below.startswith(ESCAPE):
        raise InvalidRequest(f"the name of {name!r} is not valid Unicode, so no archive can hold its labels")
    if "./" in name:
        raise InvalidRequest(f"a folder of {name!r} ends in a dot, where YOLO loses it; export coco or list")
    if f"/{IMAGES}" in f"/{below}":
        raise InvalidRequest(f"YOLO would look for the labels of {name!r} inside its folders; export coco or list")
    return str(PurePosixPath("labels", below).with_suffix(".txt"))


def _require_distinct(labels: Mapping[str, str]) -> None:
    """Refuse files that are one on macOS or Windows, which know no capitals and spell accents in one way."""
    taken: dict[str, str] = {}
    for name, file in labels.items():
        if (other := taken.setdefault(unicodedata.normalize("NFC", file).casefold(), name)) != name:
            raise InvalidRequest(f"{other!r} and {name!r} would share the labels {file!r}; export coco or list")


def _quoted(name: str) -> str:
    """A name as YAML, which is JSON but for characters that YAML wants escaped."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(name, ensure_ascii=False))


def _yaml(boxes: Boxes, lists: Mapping[str, list[str]], images: str) -> str:
    """`data.yaml`. Raises `InvalidRequest`: no comment can hold the folder of images."""
    if _UNPRINTABLE.search(images):
        raise InvalidRequest(f"the folder {images!r} has line breaks or control characters; export coco or list")
    lines = [f"# The folder images beside this file is a link: ln -s {shlex.quote(images)} images"]
    lines += [f"# Left out: {number:,} annotations {reason}" for reason, number in boxes.left_out.items()]
    if n := len(boxes.stripped):
        lines.append(f"# Left out: {n:,} images with no annotation but these; empty labels would call them background")
    lines += [f"{split}: {split}.txt" for split in ("train", "val", "test") if split in lists]
    for split, others in _INSTEAD.items():
        if split not in lists:
            stand_in = next(other for other in others if other in lists)
            lines.append(f"{split}: {stand_in}.txt  # no image has this split")
    lines += [
        "names:",
        *(f"  {number}: {_quoted(name)}" for number, name in enumerate(boxes.classes.values())),
    ]
    return "\n".join(lines) + "\n"
