"""One attempt at an import of local parts, as `constellate bulk` writes them: nothing is uploaded or computed."""

import asyncio
from contextlib import aclosing, closing

from serve_app.errors import InvalidRequest
from serve_app.jobs.listing import Lister
from serve_app.jobs.read_ahead import read_ahead
from serve_app.jobs.vector_file import VectorFile
from serve_app.records import Claim
from serve_app.services import Writer
from serve_app.sources import bulk
from serve_app.sources.bulk import Part
from serve_app.sources.listing import open_listing
from serve_app.store.imports import Imports
from serve_app.store.vectors import Vectors

LEASE_S = 5.0


async def parts_job(claim: Claim, writer: Writer, lister: Lister) -> None:
    """Run a claimed import whose `params` name a folder of `parts` until it is over. An attempt begins anew.

    Raises:
        OutsideRoots: the folder is no longer below the roots.
        InvalidRequest: a part is damaged, or the parts are of several spaces.
        DiskFull: the disk has no room for the vectors.
        StaleAttempt: the job was cancelled, or another attempt claimed it.
    """
    job_id, attempt = claim.job.id, claim.attempt
    found = await asyncio.to_thread(lister.parts, str(claim.params["parts"]))
    filled = [part for part in found if part.n_rows]
    if not filled:
        raise InvalidRequest("the parts have no rows")
    vectors = bulk.vectors(found)
    dimension = await asyncio.to_thread(_dimension, filled[0])
    await writer.ask(
        Imports.begin,
        job_id,
        attempt,
        model_name=vectors.model_name,
        space_key=vectors.space_key,
        dimension=dimension,
        total=vectors.total,
    )
    block_no = 0
    for part in filled:
        with closing(open_listing(part.path)) as file:
            source = await asyncio.to_thread(VectorFile, file)
            if source.dimension != dimension:
                raise InvalidRequest(f"{part.path.name!r} has vectors of {source.dimension} numbers, not {dimension}")
            async with aclosing(read_ahead(source.blocks())) as blocks:
                async for rows in blocks:
                    block_no += 1
                    await writer.ask(Imports.put, job_id, attempt, block_no, rows, lease_s=LEASE_S)
    await writer.ask(Vectors.commit, job_id, attempt)


def _dimension(part: Part) -> int:
    with closing(open_listing(part.path)) as file:
        return VectorFile(file).dimension
