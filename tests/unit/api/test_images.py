import io
import os
from urllib.parse import quote, unquote

import pytest
from PIL import Image

from serve_app.api.image_queue import ImageQueue
from serve_app.images import decode
from serve_app.sources.files import UNKNOWN
from tests.unit.api.asgi import opened
from tests.unit.api.conftest import png


def url(dataset, sample_id, kind="image"):
    return f"/datasets/{dataset['id']}/samples/{quote(sample_id)}/{kind}"


@pytest.mark.parametrize("sample_id", ["rose/a.png", "tulip/d e+é.png"])
async def test_an_image_is_served_byte_for_byte(client, dataset, root, sample_id):
    answer = await client.get(url(dataset, sample_id))
    assert answer.status_code == 200
    assert answer.content == (root / "flowers" / sample_id).read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith("inline; filename*=UTF-8''")
    assert answer.headers["content-disposition"].isascii()


async def test_a_slash_of_a_sample_id_may_be_escaped(client, dataset):
    answer = await client.get(f"/datasets/{dataset['id']}/samples/rose%2Fa.png/image")
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
async def test_a_client_that_has_it_is_told_so_until_the_file_changes(client, dataset, root, kind):
    first = await client.get(url(dataset, "rose/a.png", kind))
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await client.get(url(dataset, "rose/a.png", kind), headers={"If-None-Match": known})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == tag
    path = root / "flowers" / "rose" / "a.png"
    path.write_bytes(png((0, 255, 0), size=(64, 64)))
    os.utime(path, ns=(1, 1))
    changed = await client.get(url(dataset, "rose/a.png", kind), headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.content != first.content


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
@pytest.mark.parametrize("mtime_ns", [-1, -86_400 * 10**9, 2**63 * 1000, -(2**63) * 1000])
async def test_a_file_from_before_1970_or_after_2262_is_served_as_any_other(client, root, kind, mtime_ns):
    (root / "old").mkdir()
    (root / "old" / "a.png").write_bytes(png())
    os.utime(root / "old" / "a.png", ns=(0, mtime_ns))
    answer = await client.post("/datasets", json={"name": "old", "root": str(root / "old")})
    assert answer.status_code == 201, answer.text
    first = await client.get(url(answer.json(), "a.png", kind))
    assert first.status_code == 200, first.text
    again = await client.get(url(answer.json(), "a.png", kind), headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
async def test_an_image_whose_server_tells_no_time_of_change_is_served_and_tagged_by_its_content(
    client, app, dataset, kind, monkeypatch
):
    """As it is with images of the web without entity tag: their listing knows neither size nor time."""
    monkeypatch.setattr(app.state.context.reader, "examine", lambda root, listed: [UNKNOWN])
    first = await client.get(url(dataset, "rose/a.png", kind))
    again = await client.get(url(dataset, "rose/a.png", kind), headers={"If-None-Match": "*"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.headers["etag"] == again.headers["etag"]
    other = await client.get(url(dataset, "rose/b.png", kind))
    assert other.headers["etag"] != first.headers["etag"]


async def test_images_that_nobody_receives_leave_no_room_for_more(client, app, dataset):
    app.state.context.image_queue = ImageQueue("image", max_held_bytes=1)
    refused = await client.get(url(dataset, "rose/a.png"))
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert "retry-after" in refused.headers
    app.state.context.image_queue = ImageQueue("image", max_held_bytes=100)
    answers = [await client.get(url(dataset, name)) for name in ("rose/a.png", "rose/b.png")]
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_a_file_that_is_no_image_is_never_served(client, dataset, root):
    for content in (b"<script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b""):
        (root / "flowers" / "rose" / "a.png").write_bytes(content)
        for kind in ("image", "thumbnail"):
            answer = await client.get(url(dataset, "rose/a.png", kind))
            assert answer.status_code in (404, 422)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "rose/a.png" in answer.json()["detail"]
            assert str(root) not in answer.text


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
async def test_a_file_that_is_gone_is_not_found(client, dataset, root, kind):
    (root / "flowers" / "rose" / "a.png").unlink()
    answer = await client.get(url(dataset, "rose/a.png", kind))
    assert answer.status_code == 404
    assert answer.json()["code"] == "sample_not_found"


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
async def test_a_file_swapped_for_a_link_out_of_the_root_is_not_followed(client, dataset, root, tmp_path, kind):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png((1, 1, 1)))
    path = root / "flowers" / "rose" / "a.png"
    path.unlink()
    path.symlink_to(secret)
    assert (await client.get(url(dataset, "rose/a.png", kind))).status_code == 404


HOSTILE = [
    "..",
    "../../etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..%5c..%5cetc",
    "rose/a.png%00",
    "%ff",
    "rose/../rose/a.png",
    "rose//a.png",
    "'%20OR%20'1'='1",
    "x" * 5000,
]


async def test_what_the_table_does_not_hold_is_not_found_and_all_answers_are_alike(app, dataset):
    problems = set()
    for hostile in HOSTILE:
        for kind in ("image", "thumbnail"):
            path = f"/datasets/{dataset['id']}/samples/{hostile}/{kind}"
            async with opened(app, path, headers={"X-Request-ID": "same"}) as answer:
                assert answer.status == 404, hostile
                problem = await answer.json()
                assert problem["code"] == "sample_not_found"
                problems.add(problem["detail"].replace(unquote(hostile), "ID"))
    assert len(problems) == 1


@pytest.mark.parametrize(("size", "expected"), [(None, (256, 128)), (16, (16, 8)), (100, (100, 50)), (512, (400, 200))])
async def test_a_thumbnail_fits_the_size_and_never_grows(client, dataset, root, size, expected):
    (root / "flowers" / "rose" / "a.png").write_bytes(png(size=(400, 200)))
    params = {"size": size} if size else {}
    answer = await client.get(url(dataset, "rose/a.png", "thumbnail"), params=params)
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == expected


async def test_a_thumbnail_size_out_of_bounds_is_refused(client, dataset):
    for size in ["15", "513", "0", "-5", "1_0", "1e2", "big", ""]:
        answer = await client.get(url(dataset, "rose/a.png", "thumbnail"), params={"size": size})
        assert answer.status_code == 422, size


async def test_a_thumbnail_is_upright_and_carries_no_metadata(client, dataset, root):
    picture = Image.new("RGB", (60, 30), (255, 0, 0))
    exif = picture.getexif()
    exif[0x0112] = 6  # Orientation: turn a quarter
    exif[0x010F] = "Secret Camera"
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    (root / "flowers" / "rose" / "a.png").write_bytes(buffer.getvalue())
    answer = await client.get(url(dataset, "rose/a.png", "thumbnail"))
    made = Image.open(io.BytesIO(answer.content))
    assert made.size == (30, 60)
    assert not made.getexif()
    assert b"Secret" not in answer.content


async def test_a_thumbnail_is_made_once_for_each_version_of_a_file(client, dataset, root, monkeypatch):
    made = []
    thumbnail = decode.thumbnail
    monkeypatch.setattr(decode, "thumbnail", lambda data, size_px: made.append(size_px) or thumbnail(data, size_px))
    address = url(dataset, "rose/a.png", "thumbnail")
    first = await client.get(address)
    assert (await client.get(address)).content == first.content
    assert made == [256]
    await client.get(address, params={"size": 64})
    assert made == [256, 64]
    (root / "flowers" / "rose" / "a.png").write_bytes(png((0, 0, 255), size=(70, 70)))
    assert (await client.get(address)).content != first.content
    assert made == [256, 64, 256]


async def test_a_cache_that_cannot_be_written_costs_time_only(client, dataset, settings):
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "thumbnails").write_text("a file where the folder belongs")
    assert (await client.get(url(dataset, "rose/a.png", "thumbnail"))).status_code == 200


async def sprites(client, dataset, sample_ids, size_px=32):
    answer = await client.post(
        f"/datasets/{dataset['id']}/sprites", json={"sample_ids": sample_ids, "size_px": size_px}
    )
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as sheet:
        assert sheet.format == "WEBP"
        return sheet.convert("RGBA")


async def test_a_sheet_has_the_middle_squares_row_by_row_and_clear_cells_for_what_is_not_there(client, root):
    (root / "colours").mkdir()
    for name, colour in {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}.items():
        (root / "colours" / f"{name}.png").write_bytes(png(colour, size=(90, 60)))
    (root / "colours" / "d.png").write_bytes(b"no image")
    answer = await client.post("/datasets", json={"name": "colours", "root": str(root / "colours")})
    sheet = await sprites(client, answer.json(), ["c.png", "d.png", "a.png", "gone.png", "b.png"])
    assert sheet.size == (3 * 32, 2 * 32)
    middles = [sheet.getpixel((x, y)) for y in (16, 48) for x in (16, 48, 80)]
    assert [alpha for *_, alpha in middles] == [255, 0, 255, 0, 255, 0]
    assert [colour.index(max(colour[:3])) for colour in middles if colour[3]] == [2, 0, 1]


async def test_a_sheet_is_bounded(client, dataset):
    url = f"/datasets/{dataset['id']}/sprites"
    for body in ({"sample_ids": []}, {"sample_ids": ["a"] * 257}, {"sample_ids": ["a"], "size_px": 129}):
        assert (await client.post(url, json=body)).status_code == 422
    assert (await client.post("/datasets/nowhere/sprites", json={"sample_ids": ["a"]})).status_code == 404
    whole = {"sample_ids": ["rose/a.png"], "size_px": 32.0}  # JSON has one kind of number
    assert (await client.post(url, json=whole)).status_code == 200
