"""The folders that may become datasets, for somebody who chooses one."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from serve_app.api import problems
from serve_app.api.context import ContextNow
from serve_app.errors import InvalidRequest, OutsideRoots
from serve_app.sources.roots import MAX_PATH_CHARS, Roots, open_root
from serve_app.sources.subfolders import LOOKED_AT, look, subfolders
from serve_app.urls import is_url

PAGE = 100

router = APIRouter(tags=["datasets"])

_Path = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH_CHARS)]
FolderPath = Annotated[_Path | SkipJsonSchema[None], Query(description="a folder; without it, the dataset roots")]
After = Annotated[
    str, StringConstraints(max_length=MAX_PATH_CHARS), Query(description="`next_cursor` of the page before")
]


class Folder(BaseModel):
    """A folder that may become a dataset."""

    name: str = Field(examples=["rose"])
    path: str = Field(examples=["/data/flowers/rose"])
    images: int | None = Field(
        description=f"images directly in it, counted among its first {LOOKED_AT:,} names; null if the service may not "
        "look, or for a URL",
        examples=[2],
    )


class FolderPage(BaseModel):
    """Folders below another one, or the dataset roots."""

    path: str | None = Field(description="the real path of the folder above; null for the roots", examples=["/data"])
    parent: str | None = Field(description="the folder above that; null if it is outside the roots", examples=[None])
    items: list[Folder]
    next_cursor: str | None = Field(examples=[None])


@router.get("/folders", responses=problems.documented(OutsideRoots))
async def list_folders(context: ContextNow, path: FolderPath = None, cursor: After = "") -> FolderPage:
    """List the sub-folders of a folder below the dataset roots, or the roots themselves, by name.

    Hidden folders and links are left out, as in a listing.
    """
    roots = context.settings.dataset_roots
    if path is None:
        return FolderPage(path=None, parent=None, items=await asyncio.to_thread(_roots, roots), next_cursor=None)
    return await asyncio.to_thread(_below, path, roots, cursor)


def _roots(roots: Roots) -> list[Folder]:
    urls = [Folder(name=str(root), path=str(root), images=None) for root in roots if is_url(str(root))]
    found = [look(root) for root in roots if isinstance(root, Path)]
    return [Folder(name=folder.path, path=folder.path, images=folder.images) for folder in found] + urls


def _below(path: str, roots: Roots, after: str) -> FolderPage:
    if is_url(path):
        raise InvalidRequest("folders behind a URL are not listed; give the whole URL as the root of a dataset")
    real, folder_fd = open_root(path, roots)
    try:
        found, has_more = subfolders(real, folder_fd, after, PAGE)
    finally:
        os.close(folder_fd)
    items = [Folder(name=folder.name, path=folder.path, images=folder.images) for folder in found]
    is_inner = any(real.parent.is_relative_to(root) for root in roots if isinstance(root, Path))
    parent = str(real.parent) if is_inner else None
    return FolderPage(path=str(real), parent=parent, items=items, next_cursor=items[-1].name if has_more else None)
