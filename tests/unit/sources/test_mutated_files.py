"""Valid files of each reader with bytes changed: only the service's own errors come out, and no path of the machine."""

import io
import json
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import RefusedImage, ServiceError
from serve_app.sources.reading import Reader

IMAGES = [b"\x89PNG\r\n\x1a\n" + bytes([n]) * 20 for n in range(4)]
NAMES = [f"a/{n}.png" for n in range(4)]


def tar(format):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for name, data in zip(NAMES, IMAGES, strict=True):
            for member, content in (
                (name, data),
                (name.replace("png", "cls"), b"7"),
                (name + ".json", b'{"label":"x"}'),
            ):
                info = tarfile.TarInfo(("x" * 120 if name == NAMES[0] else "") + member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def parquet(columns, **options):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=2, **options)
    return sink.getvalue()


COCO = json.dumps(
    {
        "images": [{"id": n, "file_name": name, "coco_url": f"http://h/{n}.png"} for n, name in enumerate(NAMES)],
        "annotations": [{"image_id": n, "category_id": n % 2, "bbox": [0, 0, 4, 4]} for n in range(4)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dög"}],
    }
).encode()
LABELS = ["cat", "dog", None, "dög"]
TABLE = {"file_name": NAMES, "label": LABELS}
STRUCTS = {"image": [{"bytes": data, "path": name} for data, name in zip(IMAGES, NAMES, strict=True)], "label": LABELS}

FILES = {
    "COCO": ("coco", "a.json", COCO),
    "CSV": ("manifest", "a.csv", ("file_name,label\n" + "".join(f'"{name}",x\n' for name in NAMES)).encode()),
    "CSV in UTF-16": ("manifest", "a.csv", "file_name,label\n0.png,ö\n1.png,\n2.png,x\n3.png,y\n".encode("utf-16")),
    "JSON Lines": (
        "manifest",
        "a.jsonl",
        "".join(json.dumps({"file_name": name, "label": 1.5}) + "\n" for name in NAMES).encode(),
    ),
    "Parquet manifest": ("manifest", "a.parquet", parquet(TABLE)),
    "plain Parquet manifest": ("manifest", "a.parquet", parquet(TABLE, compression="none", use_dictionary=False)),
    "USTAR": ("webdataset", "a.tar", tar(tarfile.USTAR_FORMAT)),
    "GNU tar": ("webdataset", "a.tar", tar(tarfile.GNU_FORMAT)),
    "PAX": ("webdataset", "a.tar", tar(tarfile.PAX_FORMAT)),
    "Parquet of images": ("parquet", "a.parquet", parquet(STRUCTS)),
    "plain Parquet of images": ("parquet", "a.parquet", parquet(STRUCTS, compression="none", use_dictionary=False)),
}
EXTREMES = (
    b"\xff",
    b"\x80",
    b"\0" * 4,
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\x80" + bytes(11),
    b"-1",
    b"1e999",
    b'"',
    b"{",
)

EXAMPLES = 60

mutations = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.sampled_from(EXTREMES), st.binary(min_size=0, max_size=6)),
        st.integers(0, 8),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content, changes):
    """A copy in which some bytes at each place are replaced by others, of which there may be more or fewer."""
    for where, new, n_removed in changes:
        place = int(where * len(content))
        content = content[:place] + new + content[place + n_removed :]
    return content


def ask(kind, content):
    """Detect, list, examine and read, as registering and embedding do."""
    format, name, _ = FILES[kind]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / name).write_bytes(content)
        reader = Reader(Settings(dataset_roots=(root,)))
        try:
            found, annotations = sources.detect(root, root / name, format)
            listed = [file for page in sources.scan(root, found, annotations) for file in page]
            reader.examine(str(root), listed)
        except ServiceError as error:
            require_no_path(error, folder)
            return 0
        for file in listed:
            try:
                reader.read(str(root), file, max_bytes=1 << 20)
            except RefusedImage as error:
                require_no_path(error, folder)
        return len(listed)


def require_no_path(error, folder):
    assert folder not in error.detail


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_file_is_listed(kind):
    assert ask(kind, FILES[kind][2]) == 4


@pytest.mark.parametrize("kind", FILES)
def test_a_mutated_file_is_read_or_refused_by_an_error_of_the_service(kind):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mutations)
    def check(changes):
        ask(kind, mutated(FILES[kind][2], changes))

    check()
