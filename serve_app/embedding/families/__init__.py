"""The families of models that the service runs, and which one a checkpoint belongs to."""

from collections.abc import Mapping

from serve_app.embedding.families import clip, dinov2, dinov3, generic, siglip
from serve_app.embedding.families.family import Family, KnownModel
from serve_app.errors import UnknownModel

FAMILIES = (dinov2.FAMILY, dinov3.FAMILY, siglip.FAMILY, clip.FAMILY)
"""Every family with model types of its own; `generic.FAMILY` takes the others."""

KNOWN: Mapping[str, KnownModel] = {model.name: model for family in FAMILIES for model in family.known}
"""Every model that has a name of its own."""

_FAMILY_OF_KNOWN = {model.name: family for family in FAMILIES for model in family.known}
REFUSED = {
    "siglip2": "SigLIP 2 NaFlex takes images of any shape as lists of patches, which this service does not make; the "
    "checkpoints of fixed resolution work (siglip2-base)",
}
"""Model types that are refused, and why."""

_MARK = "?pooling="


def of_type(model_type: str) -> Family:
    """The family of a checkpoint's `model_type`. Raises `UnknownModel`: it is one of `REFUSED`."""
    if model_type in REFUSED:
        raise UnknownModel(REFUSED[model_type])
    return next((family for family in FAMILIES if model_type in family.model_types), generic.FAMILY)


def of_known(name: str) -> Family:
    """The family of a model that has a name of its own."""
    return _FAMILY_OF_KNOWN[name]


def split(name: str) -> tuple[str, str | None]:
    """The parts of a model's name: a known name or folder, and the pooling that it asks for, or None."""
    base, mark, pooling = name.rpartition(_MARK)
    return (base, pooling) if mark else (name, None)


def pooling_of(name: str, family: Family) -> str:
    """The pooling of a model's name.

    Raises:
        UnknownModel: the family has no such pooling, or the name must say one and does not.
    """
    base, pooling = split(name)
    choices = " or ".join(f"{base}{_MARK}{choice}" for choice in family.poolings)
    if pooling is None and family.asks_for_pooling:
        raise UnknownModel(f"{base!r} is of no family that the service knows; say what becomes its vector: {choices}")
    if pooling is not None and pooling not in family.poolings:
        raise UnknownModel(f"{family.name} has no pooling {pooling!r}: {choices}")
    return pooling or next(iter(family.poolings))


def canonical(base: str, name: str, family: Family) -> str:
    """The one spelling of a model: `base`, and the pooling unless it is the family's own. Raises as `pooling_of`."""
    pooling = pooling_of(name, family)
    is_default = not family.asks_for_pooling and pooling == next(iter(family.poolings))
    return base if is_default else f"{base}{_MARK}{pooling}"
