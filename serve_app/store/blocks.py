"""A block of a job: checked against the job, staged, and counted."""

import numpy as np

from serve_app.errors import InvalidRequest, ModelReplaced
from serve_app.records import Block, FileStamp, Skip
from serve_app.store import column_rows, job_rows, staging
from serve_app.store.job_rows import JobRow
from serve_app.store.job_samples import Borrowed
from serve_app.store.session import Session
from serve_app.store.staging import Space


def require_shape(block: Block, row: JobRow) -> None:
    """Raise `InvalidRequest`, or `ModelReplaced` for vectors of another space, if the block does not fit its job."""
    expected = (len(block.sample_ids), row.dimension)
    if block.sample_ids and (block.vectors.dtype != np.float32 or block.vectors.shape != expected):
        raise InvalidRequest(f"vectors are {block.vectors.dtype} {block.vectors.shape}, not float32 {expected}")
    if block.sample_ids and block.space_key != row.space_key:
        raise ModelReplaced("the vectors were made by another model or in another precision than the job's")
    if len(block.stamps) != len(block.sample_ids):
        raise InvalidRequest(f"{len(block.sample_ids)} vectors come with {len(block.stamps)} stamps")


def put(session: Session, row: JobRow, space: Space, block: Block, block_no: int, samples: Borrowed) -> JobRow:
    """Stage and count the samples of a block that are still pending, each once."""
    asked = [*block.sample_ids, *(sample_id for sample_id, _ in block.known), *(skip.sample_id for skip in block.skips)]
    index = samples.index(session, row)
    found = [match for match in index.find(session, asked) if not match.is_settled]
    pending = {match.sample_id: match.file_name for match in found}
    fresh = staging.usable(block.vectors) if block.sample_ids else np.empty(0, bool)
    keep: list[int] = []
    skips: list[Skip] = []
    for position, sample_id in enumerate(block.sample_ids):
        file_name = pending.pop(sample_id, None)
        if file_name is None:
            continue
        if fresh[position]:
            keep.append(position)
        else:
            skips.append(Skip(sample_id, file_name, "nonfinite", "the model gave no usable vector"))
    known: list[tuple[str, FileStamp]] = [entry for entry in block.known if pending.pop(entry[0], None) is not None]
    skips += [skip for skip in block.skips if pending.pop(skip.sample_id, None) is not None]
    embedded = staging.stage_vectors(
        session,
        space,
        [block.sample_ids[position] for position in keep],
        [block.stamps[position] for position in keep],
        block.vectors[keep],
    )
    read = [(block.sample_ids[position], block.stamps[position]) for position in keep]
    column_rows.put_headers(session, row.dataset_id, [*read, *known])
    reused = staging.stage_known(session, space, known)
    skipped = staging.put_skips(session, space, skips, first_position=row.skipped)
    row = advance(session, row, block_no=block_no, embedded=embedded, reused=reused, skipped=skipped)
    if reused == len(known):  # or it is unknown which of them are still pending
        index.settle([match for match in found if match.sample_id not in pending])
        samples.keep(row)
    return row


def advance(
    session: Session, row: JobRow, *, block_no: int, embedded: int = 0, reused: int = 0, skipped: int = 0
) -> JobRow:
    """Add newly settled samples to a job's counters and message."""
    processed = row.processed + embedded + reused + skipped
    return job_rows.update(
        session,
        row,
        embedded=row.embedded + embedded,
        reused=row.reused + reused,
        skipped=row.skipped + skipped,
        last_block=block_no,
        message=f"Embedding {processed:,} of {row.total:,}",
    )
