"""What each reason for a skipped image says, and whether a set that lacks such images may replace a better one.

A set may become smaller because its images are bad or gone. It must not become smaller because the storage or a process
failed: the same images may have vectors tomorrow. Each reason has one verdict here.
"""

from collections.abc import Mapping
from typing import Literal

Verdict = Literal["image", "storage", "worker"]
"""What the reason is about: the image itself, the storage that did not give the image, or the process that read it."""

VERDICTS: Mapping[str, Verdict] = {
    # Somebody read the image, or its name, and it is not usable.
    "corrupt": "image",
    "empty": "image",
    "format_not_allowed": "image",
    "too_large": "image",
    "too_many_pixels": "image",
    "too_much_memory": "image",
    "too_much_work": "image",
    "truncated": "image",
    "unidentified": "image",
    "unsafe_name": "image",
    # Nobody could read the image.
    "changed": "storage",  # its container was replaced, and a rescan finds the image again
    "io_error": "storage",
    "not_found": "storage",
    "not_regular": "storage",  # a folder or device has taken its place
    "permission_denied": "storage",
    "symlink": "storage",  # a moved folder leaves a link behind
    "unreachable": "storage",
    # The image was read, and no vector came of it.
    "crashed_worker": "worker",  # one such image is to blame itself; many have a replica without memory in common
    "nonfinite": "worker",  # many such images have a model or a GPU in common
}

OUT_OF_REACH = frozenset(reason for reason, verdict in VERDICTS.items() if verdict == "storage")
"""The reasons that images get when their whole folder or bucket is gone."""


def objections(skips: Mapping[str, int], total: int) -> dict[str, int]:
    """The skips that keep a job from replacing a set: more than half of the images failed and are not to blame.

    A reason without a verdict counts as a failure of the storage.

    Args:
        skips: the number of skipped images by reason.
        total: the number of images of the dataset.

    Returns:
        The skips of such reasons, the most frequent first; none when the job may replace the set.
    """
    failed = {reason: count for reason, count in skips.items() if VERDICTS.get(reason) != "image"}
    if 2 * sum(failed.values()) <= total:
        return {}
    return dict(sorted(failed.items(), key=lambda item: (-item[1], item[0])))
