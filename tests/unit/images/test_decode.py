import contextlib
import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serve_app.errors import InvalidRequest, ModelUnavailable
from serve_app.images.decode import (
    DEFAULT_LIMITS,
    MAX_THUMBNAIL_PX,
    ImageLimits,
    Preprocessing,
    RefusedImage,
    decode,
    decode_with_header,
    header_of,
    sniff_content_type,
    thumbnail,
)
from tests.unit.effort import cpu_s

PUBLISHED = Preprocessing()
SMALL = Preprocessing(resize_px=32, crop_px=28)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
ORIENTATION = 0x0112


def photo(width, height, seed=0, cell_px=8):
    """Smooth colours: a random one every `cell_px` pixels."""
    shape = (height // cell_px + 1, width // cell_px + 1, 3)
    coarse = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def noise(width, height, seed=0):
    """Nothing but hard edges."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255)


def encode(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def grey_levels_between(one, other):
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def rejection(data, limits=None):
    with pytest.raises(RefusedImage) as caught:
        decode(data, SMALL, *([limits] if limits else []))
    return caught.value


# Parity with resizing first and cropping then (tests/unit/embedding/test_model.py compares with transformers itself)


def resized_then_cropped(image):
    """What `BitImageProcessor` of transformers does for DINOv2."""
    short = min(image.size)
    width, height = (256 if side == short else int(256 * side / short) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


SIZES = [
    (300, 200), (200, 300), (256, 256), (224, 224), (225, 301), (517, 389), (40, 400), (400, 40), (3, 20), (20, 3),
    (1, 1), (2, 2), (640, 480), (480, 640),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("draw", "allowed"), [(photo, 1), (noise, 2)], ids=["photo", "hard edges"])
def test_one_resample_gives_the_pixels_of_resize_and_crop(size, draw, allowed):
    image = draw(*size)
    expected = resized_then_cropped(image)
    pixels = decode(encode(image), PUBLISHED)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert grey_levels_between(pixels, expected) <= allowed
    assert (pixels != expected).mean() < 0.005


def test_an_image_of_the_resized_size_is_only_cropped():
    image = noise(256, 256)
    assert np.array_equal(decode(encode(image), PUBLISHED), np.asarray(image)[16:240, 16:240])


# Formats, modes, frames


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_accepted_format_is_told_by_its_content(image_format):
    image = photo(90, 60)
    data = encode(image, image_format)
    with Image.open(io.BytesIO(data)) as stored:
        twin = encode(stored.convert("RGB"))
    assert grey_levels_between(decode(data, SMALL), decode(twin, SMALL)) <= 1


def _with_alpha(mode):
    image = photo(90, 60).convert(mode)
    image.putalpha(photo(90, 60, seed=1).convert("L"))
    return image


def _palette_with_transparency():
    image = photo(90, 60).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def _colour_key():
    image = Image.fromarray(np.repeat(np.repeat([[0, 200], [90, 0]], 30, 0), 45, 1).astype(np.uint8))
    image.info["transparency"] = 200
    return image


def on_white(image):
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


@pytest.mark.parametrize(
    ("image", "image_format"),
    [
        pytest.param(photo(90, 60).convert("L"), "PNG", id="L"),
        pytest.param(photo(90, 60).convert("1"), "PNG", id="1 bit"),
        pytest.param(photo(90, 60).quantize(16), "PNG", id="P"),
        pytest.param(photo(90, 60).convert("CMYK"), "TIFF", id="CMYK"),
        pytest.param(photo(90, 60).convert("YCbCr"), "TIFF", id="YCbCr"),
        pytest.param(Image.merge("LAB", photo(90, 60).split()), "TIFF", id="LAB"),
    ],
)
def test_a_mode_without_transparency_equals_its_rgb_twin(image, image_format):
    twin = image.convert("RGB")
    assert grey_levels_between(decode(encode(image, image_format), SMALL), decode(encode(twin), SMALL)) <= 1


@pytest.mark.parametrize(
    ("image", "image_format"),
    [
        pytest.param(_with_alpha("L"), "PNG", id="LA"),
        pytest.param(_with_alpha("RGB"), "PNG", id="RGBA"),
        pytest.param(_with_alpha("RGB"), "TIFF", id="RGBA TIFF"),
        pytest.param(_palette_with_transparency(), "PNG", id="palette with transparency"),
        pytest.param(_colour_key(), "PNG", id="one transparent grey"),
    ],
)
def test_transparency_is_laid_on_white(image, image_format):
    data = encode(image, image_format)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.has_transparency_data
        twin = encode(on_white(stored))
    assert grey_levels_between(decode(data, SMALL), decode(twin, SMALL)) <= 1


def _full_range_grey():
    grey = np.asarray(photo(90, 60).convert("L")).astype(np.float64)
    return np.rint((grey - grey.min()) / (grey.max() - grey.min()) * 255)


@pytest.mark.parametrize(
    ("values", "image_format"),
    [
        pytest.param(lambda grey: (grey * 257).astype(np.uint16), "PNG", id="16 bit PNG"),
        pytest.param(lambda grey: (grey * 257).astype(">u2"), "TIFF", id="16 bit big-endian TIFF"),
        pytest.param(lambda grey: (grey * 1000 - 7).astype(np.int32), "TIFF", id="32 bit integers"),
        pytest.param(lambda grey: (grey / 255).astype(np.float32), "TIFF", id="floats"),
    ],
)
def test_deep_pixels_are_scaled_to_8_bits_instead_of_clipped(values, image_format):
    grey = _full_range_grey()
    data = encode(Image.fromarray(values(grey)), image_format)
    twin = encode(Image.fromarray(grey.astype(np.uint8)))
    assert grey_levels_between(decode(data, SMALL), decode(twin, SMALL)) <= 1


def test_a_flat_float_image_is_black():
    assert decode(encode(Image.new("F", (40, 30), 7.5), "TIFF"), SMALL).max() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_rejected(value):
    values = np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(30, 40)
    values[15, 20] = value
    assert rejection(encode(Image.fromarray(values), "TIFF")).reason == "corrupt"


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_the_first_of_many_frames_counts(image_format):
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue", "green")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    red, green, blue = decode(data, SMALL).reshape(-1, 3).mean(0)
    assert red > 245
    assert green < 10
    assert blue < 10


# Pictures with much or odd beside their pixels

LONG = bytes(3_000_000)
METADATA = {
    "colour profile": [(b"iCCP", b"x\0\0" + zlib.compress(LONG))],
    "damaged colour profile": [(b"iCCP", b"x\0\0" + b"no profile")],
    "XMP": [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 700_000)],
    "packed XMP": [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG))],
    "text": [(b"tEXt", b"x\0" + b"a" * 3_000_000)],
    "packed text": [(b"zTXt", b"x\0\0" + zlib.compress(LONG))],
    "many texts": [(b"zTXt", b"x%d\0\0" % i + zlib.compress(bytes(900_000))) for i in range(90)],
}


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_png_with_much_metadata_is_the_picture_without_it(kind, before):
    png = encode(photo(90, 60))
    cut = png.index(before) - 4
    long = png[:cut] + b"".join(png_chunk(*chunk) for chunk in METADATA[kind]) + png[cut:]
    assert np.array_equal(decode(long, SMALL), decode(png, SMALL))


def test_a_png_with_a_colour_profile_keeps_the_orientation_in_its_texts():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="3"/></x:xmpmeta>'
    png = encode(photo(90, 60))
    cut = png.index(b"IDAT") - 4
    chunks = [(b"iCCP", b"x\0\0" + zlib.compress(LONG)), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)]
    turned = png[:cut] + b"".join(png_chunk(*chunk) for chunk in chunks) + png[cut:]
    assert np.array_equal(decode(turned, SMALL), decode(encode(photo(90, 60).rotate(180)), SMALL))


def bmp_with_empty_alpha(header_bytes, alpha=0):
    """A BMP of 32 bits with masks for four channels, as several programs write it."""
    blue, green, red = (np.asarray(channel)[::-1] for channel in reversed(photo(90, 60).split()))
    pixels = np.stack([blue, green, red, np.full_like(red, alpha)], axis=-1).tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", header_bytes, 90, 60, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    start = 14 + header_bytes
    return struct.pack("<2sIII", b"BM", start + len(pixels), 0, start) + head.ljust(header_bytes, b"\0") + pixels


@pytest.mark.parametrize("header_bytes", [56, 108, 124])
def test_a_bmp_whose_alpha_is_zero_throughout_is_opaque(header_bytes):
    opaque = decode(encode(photo(90, 60)), SMALL)
    assert np.array_equal(decode(bmp_with_empty_alpha(header_bytes), SMALL), opaque)
    assert decode(bmp_with_empty_alpha(header_bytes, alpha=1), SMALL).min() > 250


NO_DATA = [-9999.0, -32768.0, -3.4028234663852886e38, 3.4028234663852886e38, 1e20]


@pytest.mark.parametrize("value", NO_DATA)
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_measurement_do_not_wash_the_others_out(value, kind):
    heights = (_full_range_grey() + 200).astype(kind)
    if kind is np.int32 and abs(value) >= 2**31:
        pytest.skip("no integer holds it")
    with_gaps = heights.copy()
    with_gaps[20:24, 30:34] = value
    seen = decode(encode(Image.fromarray(with_gaps), "TIFF"), SMALL).astype(int)
    whole = decode(encode(Image.fromarray(heights), "TIFF"), SMALL).astype(int)
    assert np.abs(seen - whole).mean() < 3


@pytest.mark.parametrize("value", ["-1", "0", "nan", "255"])
def test_the_value_that_a_geotiff_names_for_no_measurement_is_believed(value):
    heights = (_full_range_grey() / 4 + 100).astype(np.float32)
    with_gaps = heights.copy()
    with_gaps[20:24, 30:34] = float(value)
    seen = decode(encode(Image.fromarray(with_gaps), "TIFF", tiffinfo={42113: value}), SMALL).astype(int)
    whole = decode(encode(Image.fromarray(heights), "TIFF"), SMALL).astype(int)
    assert np.abs(seen - whole).mean() < 3


def test_an_ordinary_extreme_is_no_gap():
    values = np.linspace(-9999, 9000, 90 * 60, dtype=np.float32).reshape(60, 90)
    assert decode(encode(Image.fromarray(values), "TIFF"), SMALL).min() < 30
    two = np.full((60, 90), 5, np.float32)
    two[:, 45:] = -9999
    assert set(np.unique(decode(encode(Image.fromarray(two), "TIFF"), SMALL)[:, [3, 24]])) == {0, 255}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({258: 64, 339: 3}, r"1 band\(s\) of 64-bit floats"),
        ({258: [32] * 3, 339: [3] * 3, 277: 3, 262: 2}, r"3 band\(s\) of 32-bit floats"),
        ({258: [16] * 5, 277: 5}, r"5 band\(s\) of 16-bit unsigned integers"),
        ({258: [16] * 2, 277: 2, 338: 2}, r"2 band\(s\) of 16-bit unsigned integers"),
    ],
)
def test_a_tiff_of_a_kind_of_pixels_that_is_not_supported_says_so(fields, says):
    error = rejection(tiff({256: 4, 257: 4, 278: 4, 273: 400, 279: 16} | fields, bytes(16)))
    assert error.reason == "format_not_allowed"
    assert re.search(says, error.detail)


def test_a_decoder_that_fails_for_want_of_memory_does_not_blame_the_file(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("out of memory when reading image file")

    data = encode(photo(90, 60))
    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert rejection(data).reason == "corrupt"

    def no_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("serve_app.images.decode.np.empty", no_memory)
    with pytest.raises(MemoryError):
        decode(data, SMALL)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_turned_image_equals_its_upright_twin(orientation, image_format, size):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(noise(*size), image_format, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as stored:
        twin = encode(ImageOps.exif_transpose(stored))
    assert grey_levels_between(decode(data, SMALL), decode(twin, SMALL)) <= 1


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_header_has_the_sides_of_the_upright_image_and_its_format(image_format):
    data = encode(photo(90, 60), image_format)
    assert header_of(data) == decode_with_header(data, SMALL)[1] == (90, 60, image_format.lower())
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = encode(photo(90, 60), "JPEG", exif=exif)
    assert header_of(turned) == decode_with_header(turned, SMALL)[1] == (60, 90, "jpeg")
    assert header_of(b"no image") is None


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_unknown_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(decode(encode(photo(90, 60), exif=exif), SMALL), decode(encode(photo(90, 60)), SMALL))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_lose_the_picture():
    data = encode(photo(90, 60), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert np.array_equal(decode(data, SMALL), decode(encode(photo(90, 60), "JPEG"), SMALL))


# What is rejected


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(side_px):
    row = b"\0" * (side_px // 8 + 1)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(side_px)) + packer.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png_with_flipped_byte():
    png = bytearray(encode(photo(90, 60)))
    png[len(png) // 2] ^= 0xFF
    return bytes(png)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="no bytes"),
        pytest.param(b"hello, I am text\n" * 9, "unidentified", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unidentified", id="SVG"),
        pytest.param(b"\0" * 100, "unidentified", id="zeros"),
        pytest.param(b"8BPS\0\1" + b"\0" * 60, "format_not_allowed", id="Photoshop"),
        pytest.param(encode(photo(9, 6), "EPS"), "format_not_allowed", id="EPS"),
        pytest.param(b"SIMPLE  =                    T" + b" " * 50, "format_not_allowed", id="FITS"),
        pytest.param(encode(photo(90, 60), "JPEG2000"), "format_not_allowed", id="JPEG 2000"),
        pytest.param(encode(photo(32, 32), "ICO"), "format_not_allowed", id="ICO"),
        pytest.param(encode(photo(9, 6), "PDF"), "format_not_allowed", id="PDF"),
        pytest.param(encode(photo(9, 6), "PPM"), "format_not_allowed", id="PNM"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 60, "corrupt", id="HEIC signature alone"),
        pytest.param(png_with_flipped_byte(), "corrupt", id="PNG with a flipped byte"),
        pytest.param(encode(photo(90, 60), "AVIF")[:-40], "truncated", id="cut AVIF"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "corrupt", id="PNG signature alone"),
        pytest.param(b"\xff\xd8\xff\xe0", "corrupt", id="JPEG signature alone"),
    ],
)
def test_bad_bytes_are_rejected_with_a_stable_reason(data, reason):
    error = rejection(data)
    assert error.reason == reason
    assert error.detail
    assert "0x" not in error.detail


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_cut_file_is_truncated(image_format, kept):
    data = encode(photo(90, 60), image_format)
    assert rejection(data[: int(len(data) * kept)]).reason == "truncated"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side_px", [13_000, 30_000])
def test_a_bomb_is_rejected_before_it_is_decoded(side_px):
    data = png_bomb(side_px)
    assert len(data) < 200_000
    assert rejection(data).reason == "too_many_pixels"
    ordinary = encode(photo(1200, 900), "PNG")
    assert cpu_s(lambda: rejection(data)) < cpu_s(lambda: decode(ordinary, SMALL))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        pytest.param(ImageLimits(max_bytes=100), "too_large", id="bytes"),
        pytest.param(ImageLimits(max_pixels=90 * 60 - 1), "too_many_pixels", id="pixels"),
        pytest.param(ImageLimits(max_side_px=89), "too_many_pixels", id="side"),
        pytest.param(ImageLimits(max_memory_bytes=90 * 60 * 10), "too_much_memory", id="memory"),
        pytest.param(ImageLimits(max_parts=5), "too_much_work", id="parts"),
    ],
)
def test_limits_hold(limits, reason):
    assert rejection(encode(photo(90, 60)), limits).reason == reason


def test_an_image_at_its_limits_is_decoded():
    data = encode(photo(90, 60))
    limits = ImageLimits(max_bytes=len(data), max_pixels=90 * 60, max_side_px=90)
    assert decode(data, SMALL, limits).shape == (28, 28, 3)


def jpeg_of_scans(scans, size=(90, 60), **metadata):
    """A progressive JPEG of `scans` scans; those beyond its own hold one run of blocks without a coefficient."""
    data = encode(photo(*size), "JPEG", progressive=True, **metadata)
    table = bytes.fromhex("ffc4 0014 10 01" + 15 * "00" + "e0")  # the code 0: a run of 2^14 blocks and more
    scan = bytes.fromhex("ffda 0008 01 0100 01 3f 10 0001")
    return data[:-2] + table + (scans - data.count(b"\xff\xda")) * scan + data[-2:]


def tiff(fields, pixels=b""):
    """A grey TIFF of the given fields by tag, each one LONG or a list of them; `pixels` begin at byte 400."""
    place, lists, entries = 400 + len(pixels), b"", b""
    for tag, value in sorted(({258: 8, 259: 1, 262: 1, 277: 1} | fields).items()):
        many = value if isinstance(value, list) else [value]
        entries += struct.pack("<HHII", tag, 4, len(many), many[0] if len(many) == 1 else place + len(lists))
        lists += struct.pack(f"<{len(many)}I", *many) if len(many) > 1 else b""
    head = struct.pack("<4sIH", b"II*\0", 8, len(entries) // 12) + entries + bytes(4)
    return head.ljust(400, b"\0") + pixels + lists


def tiled(width, height, tile_width, tile_length):
    """All tiles of a TIFF are the same few bytes."""
    count = -(-width // tile_width) * -(-height // tile_length)
    tile = zlib.compress(bytes(tile_width * tile_length))
    sizes = {256: width, 257: height, 259: 8, 322: tile_width, 323: tile_length}
    return tiff(sizes | {324: [400] * count, 325: [len(tile)] * count}, tile)


def empty_chunks(count):
    png = encode(photo(90, 60), "PNG")
    return png[:33] + count * (struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt"))) + png[33:]


def fill_bytes(count):
    jpeg = encode(photo(90, 60), "JPEG")
    return jpeg[:2] + count * b"\xff" + jpeg[2:]


def strips(count):
    return tiff({256: 4, 257: 4, 278: 1, 273: [400] * count}, bytes(16))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(lambda: jpeg_of_scans(10_000), "too_much_work", id="JPEG of 10,000 scans"),
        pytest.param(lambda: fill_bytes(1_100_000), "too_much_work", id="JPEG with a megabyte of fill bytes"),
        pytest.param(lambda: empty_chunks(510_000), "too_much_work", id="PNG of half a million chunks"),
        pytest.param(lambda: tiled(1600, 1, 16, 2**17), "too_much_work", id="TIFF of tiles far longer than the image"),
        pytest.param(lambda: tiled(1, 1, 2**13, 2**13), "too_much_memory", id="TIFF of one huge tile"),
        pytest.param(lambda: strips(100_001), "too_much_work", id="TIFF of 100,001 strips"),
        pytest.param(
            lambda: strips(100_001).replace(b"II*\0", b"II\0*", 1),
            "too_much_work",
            id="the same with a header that only Pillow takes",
        ),
    ],
)
def test_a_small_file_that_would_take_long_is_rejected(data, reason):
    assert rejection(data()).reason == reason


FEW = ImageLimits(max_scans=20, max_parts=20_000, max_strips=2000)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        pytest.param(jpeg_of_scans, FEW.max_scans, id="scans"),
        pytest.param(fill_bytes, FEW.max_parts - 100, id="fill bytes"),
        pytest.param(empty_chunks, (FEW.max_parts - 100) // 2, id="chunks"),
        pytest.param(strips, FEW.max_strips, id="strips"),
    ],
)
def test_a_file_far_beyond_a_limit_costs_no_more_than_one_within_it(make, count):
    within, beyond = make(count), make(20 * count)

    def try_within():
        with contextlib.suppress(RefusedImage):  # strips that all lie in one place are damaged
            assert decode(within, SMALL, FEW).shape == (28, 28, 3)

    assert rejection(beyond, FEW).reason == "too_much_work"
    assert cpu_s(lambda: rejection(beyond, FEW)) < 3 * cpu_s(try_within)


def test_a_jpeg_at_its_limit_of_scans_is_decoded():
    at_limit = jpeg_of_scans(DEFAULT_LIMITS.max_scans)
    assert decode(at_limit, SMALL).shape == (28, 28, 3)
    assert rejection(jpeg_of_scans(DEFAULT_LIMITS.max_scans + 1)).reason == "too_much_work"


def test_scans_of_a_thumbnail_and_behind_the_end_are_not_counted():
    scan = b"\xff\xda" * 200
    jpeg = jpeg_of_scans(12, comment=scan) + scan
    assert decode(jpeg, SMALL).shape == (28, 28, 3)


def test_scans_behind_restarts_and_stuffed_bytes_are_counted():
    data = encode(noise(90, 60), "JPEG", quality=90, restart_marker_blocks=1)
    assert b"\xff\x00" in data
    assert b"\xff\xd0" in data
    scan = data[data.index(b"\xff\xda") : -2]
    assert rejection(data[:-2] + 100 * scan + data[-2:]).reason == "too_much_work"


@pytest.mark.parametrize("side_px", [100, 1000])
def test_a_tiled_tiff_is_decoded(side_px):
    assert (decode(tiled(side_px, side_px, 256, 256), SMALL) == 0).all()


def test_the_longest_progressive_jpeg_costs_some_ordinary_ones():
    """Each of its 100 scans walks over all pixels. It took 3 times as long as a file of 10 scans that hold them."""
    side_px = 2000
    data = encode(Image.new("L", (side_px, side_px)), "JPEG", progressive=True)
    table, scan = bytes.fromhex("ffc4 0014 10 01" + 15 * "00" + "e0"), bytes.fromhex("ffda 0008 01 0100 01 3f 10")
    runs = int("0" * 15 * 5, 2).to_bytes(10, "big")  # 5 runs of 2^14 blocks
    scans = DEFAULT_LIMITS.max_scans - data.count(b"\xff\xda")
    longest = data[:-2] + table + scans * (scan + runs) + data[-2:]
    ordinary = encode(photo(side_px, side_px), "JPEG", progressive=True)
    assert decode(longest, SMALL).shape == (28, 28, 3)
    assert cpu_s(lambda: decode(longest, SMALL)) < 12 * cpu_s(lambda: decode(ordinary, SMALL))


EXTREME = """
import io, resource, sys
from PIL import Image
from serve_app.images.decode import Preprocessing, decode, thumbnail
file = io.BytesIO()
Image.new("RGB", eval(sys.argv[1])).save(file, "PNG")
decode(file.getvalue(), Preprocessing(8, 8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decode(file.getvalue(), Preprocessing()).shape == (224, 224, 3)
assert thumbnail(file.getvalue(), 256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


HEAVY = """
import re, sys
from serve_app.images.decode import Preprocessing, RefusedImage, decode
# Not ru_maxrss: a process begins with that of the one that started it.
def peak_bytes(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
data = sys.stdin.buffer.read()
before = peak_bytes()
try:
    decode(data, Preprocessing())
except RefusedImage as error:
    sys.exit(error.reason)
print(peak_bytes() - before)
"""


@pytest.mark.parametrize(("side_px", "is_admitted"), [(5300, True), (5400, False)])
def test_the_hungriest_format_stays_within_its_memory(side_px, is_admitted):
    """WebP with transparency."""
    data = encode(Image.new("RGBA", (side_px, side_px), (0, 128, 128, 100)), "WEBP", lossless=True, quality=0, method=0)
    ran = subprocess.run([sys.executable, "-c", HEAVY], input=data, capture_output=True)
    if is_admitted:
        assert DEFAULT_LIMITS.max_memory_bytes / 2 < int(ran.stdout) < DEFAULT_LIMITS.max_memory_bytes
    else:
        assert ran.stderr.strip() == b"too_much_memory"


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_extreme_shapes_need_little_memory(size):
    ran = subprocess.run([sys.executable, "-c", EXTREME, str(size)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 50 * 1024  # KiB


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_extreme_shapes_are_fast(size):
    data, ordinary = encode(Image.new("RGB", size, "teal")), encode(photo(1200, 900))
    assert (decode(data, PUBLISHED) == (0, 128, 128)).all()
    assert cpu_s(lambda: decode(data, PUBLISHED)) < 3 * cpu_s(lambda: decode(ordinary, PUBLISHED))


SEEDS = {name: encode(photo(24, 16), name) for name in FORMATS}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_files_are_decoded_or_rejected_but_never_raise_anything_else(image_format, data):
    damaged = bytearray(SEEDS[image_format])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RefusedImage):
        assert decode(bytes(damaged), SMALL, ImageLimits(max_pixels=10**6)).shape == (28, 28, 3)


def test_a_rejection_survives_pickling_with_reason_and_detail():
    error = pickle.loads(pickle.dumps(RefusedImage("truncated: 3 bytes are missing: the last")))
    assert (error.reason, error.detail) == ("truncated", "3 bytes are missing: the last")
    assert (error.status, error.code) == (422, "invalid_image")


def test_threads_decode_as_one_thread_does():
    files = [encode(photo(90 + i, 60, seed=i), FORMATS[i % len(FORMATS)]) for i in range(28)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda data: decode(data, SMALL), files))
    assert all(np.array_equal(pixels, decode(data, SMALL)) for pixels, data in zip(together, files, strict=True))


# Preprocessing of a checkpoint

BIT = {
    "do_resize": True,
    "size": {"shortest_edge": 64},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 56, "width": 56},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def test_preprocessing_without_a_file_is_the_published_one(tmp_path):
    expected = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Preprocessing.from_checkpoint(tmp_path) == expected


def test_preprocessing_comes_from_the_checkpoint(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(BIT))
    assert Preprocessing.from_checkpoint(tmp_path) == Preprocessing(64, 56, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"crop_size": {"height": 65, "width": 65}}, "larger"),
        ({"crop_size": {"height": 56, "width": 48}}, "square"),
        ({"crop_size": {"height": 0, "width": 0}}, "crop"),
        ({"size": {"height": 64, "width": 64}}, "shortest_edge"),
        ({"size": {"shortest_edge": 64, "longest_edge": 99}}, "longest edge"),
        ({"resample": 1}, "filter 1"),
        ({"do_center_crop": False}, "center_crop"),
        ({"rescale_factor": 1 / 127.5}, "rescale factor"),
        ({"image_mean": [0.5]}, "three channels"),
        ({"image_std": [0.5, 0, 0.5]}, "std"),
        ({"image_std": None}, "damaged"),
    ],
    ids=str,
)
def test_preprocessing_that_cannot_be_reproduced_is_refused(tmp_path, change, complaint):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(BIT | change))
    with pytest.raises(ModelUnavailable, match=complaint) as caught:
        Preprocessing.from_checkpoint(tmp_path)
    assert str(tmp_path.parent) not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"size": 3}', "{}"])
def test_a_damaged_preprocessor_file_is_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelUnavailable, match=r"preprocessor_config\.json"):
        Preprocessing.from_checkpoint(tmp_path)


def test_a_huge_preprocessor_file_is_refused_and_not_read_to_its_end(tmp_path):
    """A client names the folder, so the file may be anything."""
    with (tmp_path / "preprocessor_config.json").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ModelUnavailable, match="larger than a MiB"):
        Preprocessing.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "fit", "how"),
    [
        ("ViTFeatureExtractor", "square", "bilinear"),
        ("CLIPImageProcessorFast", "shortest_edge", "bicubic"),
        ("BitImageProcessorPil", "shortest_edge", "bicubic"),
    ],
)
def test_old_files_with_whole_numbers_as_sizes_are_read_as_their_class_reads_them(tmp_path, name, fit, how):
    key = "feature_extractor_type" if "Extractor" in name else "image_processor_type"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({key: name, "size": 64, "crop_size": 64}))
    found = Preprocessing.from_checkpoint(tmp_path)
    assert (found.crop_px, found.resize_px, found.fit, found.filter) == (64, 64, fit, how)


# Thumbnails and media types


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("size", [(900, 600), (600, 900), (2000, 20)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_thumbnail_fits_and_keeps_the_shape(size, image_format):
    small = opened(thumbnail(encode(photo(*size), image_format), 128))
    assert small.format == "JPEG"
    scale = 128 / max(size)
    assert small.size == (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def test_a_thumbnail_shows_the_image():
    image = photo(800, 600, cell_px=80)
    expected = np.asarray(image.resize((128, 96), Image.Resampling.BICUBIC)).astype(int)
    for image_format in ("JPEG", "PNG"):
        seen = np.asarray(opened(thumbnail(encode(image, image_format), 128))).astype(int)
        assert np.abs(seen - expected).mean() < 4


def test_a_thumbnail_is_never_larger_than_the_image():
    assert opened(thumbnail(encode(photo(90, 60)), 512)).size == (90, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_upright_and_carries_no_metadata(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    data = encode(
        photo(300, 200, cell_px=40), "JPEG", exif=exif, comment=b"secret", icc_profile=b"p" * 200, dpi=(300, 300)
    )
    upright = ImageOps.exif_transpose(opened(data))
    small = opened(thumbnail(data, 150))
    assert small.size == (upright.width // 2, upright.height // 2)
    expected = np.asarray(upright.resize(small.size, Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(small).astype(int) - expected).mean() < 4
    assert not small.getexif()
    assert not {"comment", "icc_profile", "exif", "xmp", "dpi"} & set(small.info)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_has_a_thumbnail(mode):
    image = Image.new("I", (90, 60), 0).convert(mode) if mode in ("I;16", "I", "F") else photo(90, 60).convert(mode)
    assert opened(thumbnail(encode(image, "TIFF"), 45)).size == (45, 30)


@pytest.mark.parametrize("size_px", [0, -1, MAX_THUMBNAIL_PX + 1])
def test_a_thumbnail_size_out_of_range_is_an_invalid_request(size_px):
    with pytest.raises(InvalidRequest, match=str(MAX_THUMBNAIL_PX)):
        thumbnail(encode(photo(90, 60)), size_px)


def test_a_bad_file_has_no_thumbnail():
    with pytest.raises(RefusedImage, match="truncated"):
        thumbnail(encode(photo(90, 60), "JPEG")[:-200], 64)


@pytest.mark.parametrize("image_format", FORMATS)
def test_media_types_come_from_the_content(image_format):
    assert sniff_content_type(encode(photo(9, 6), image_format)) == f"image/{image_format.lower()}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"<svg/>", "unidentified"), (b"", "unidentified"), (b"%PDF-1.7", "format_not_allowed")],
    ids=["SVG", "empty", "PDF"],
)
def test_other_content_has_no_media_type(data, reason):
    with pytest.raises(RefusedImage) as caught:
        sniff_content_type(data)
    assert caught.value.reason == reason
