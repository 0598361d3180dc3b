"""One attempt at a registration or a rescan: list the source into the store, page by page, and take it over whole."""

import asyncio
from contextlib import aclosing
from typing import cast

from serve_app.errors import InvalidRequest, NameTaken
from serve_app.jobs.listing import Lister, Listing
from serve_app.jobs.read_ahead import read_ahead
from serve_app.records import Claim
from serve_app.services import Writer
from serve_app.sources.detection import WantedFormat
from serve_app.store.listings import Listings
from serve_app.store.scans import table_of


async def listing_job(claim: Claim, writer: Writer, lister: Lister) -> None:
    """Run a claimed job of kind `register` or `rescan` until it is `complete`. An attempt lists everything anew.

    Raises:
        InvalidRequest: the source cannot be used, or another dataset has got the name.
        OutsideRoots: the folder was moved out of the roots, or the roots were changed.
        StaleAttempt: the job was cancelled, or another attempt claimed it.
    """
    job_id, attempt = claim.job.id, claim.attempt
    await writer.ask(Listings.begin, job_id, attempt)
    listing = await asyncio.to_thread(_begun, claim, lister)
    await _put_all(claim, writer, listing)
    found = await asyncio.to_thread(listing.found)
    try:
        await writer.ask(Listings.commit, job_id, attempt, found)
    except NameTaken as error:
        raise InvalidRequest(f"dataset {error.detail} has got this name meanwhile") from None


async def _put_all(claim: Claim, writer: Writer, listing: Listing) -> None:
    """Send every page; one is listed while the one before is written."""
    pages = ((table_of(page), listing.n_files) for page in listing.pages())
    number = 0
    async with aclosing(read_ahead(pages)) as listed:
        async for page, n_listed in listed:
            number += 1
            await writer.ask(Listings.put, claim.job.id, claim.attempt, number, page, n_listed=n_listed)


def _begun(claim: Claim, lister: Lister) -> Listing:
    if claim.job.kind == "rescan":
        return lister.again(claim.dataset)
    wanted = cast(WantedFormat, claim.params["format"])
    return lister.new(claim.dataset.root, claim.dataset.annotations, wanted)
