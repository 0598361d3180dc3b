"""Recognises image formats by their first bytes: those that are decoded, and those that errors can name."""

import re
from typing import NamedTuple

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""Pillow's names, and pi_heif's. Others are not opened: Pillow's known holes are in formats not needed here."""


class Signature(NamedTuple):
    """The first bytes of a format's files; `content_type` is None if the format is not decoded."""

    begins: re.Pattern[bytes]
    name: str
    content_type: str | None


SIGNATURES = tuple(
    Signature(re.compile(begins, re.DOTALL), name, content_type)
    for begins, name, content_type in (
        (rb"\xff\xd8\xff", "JPEG", "image/jpeg"),
        (rb"\x89PNG\r\n\x1a\n", "PNG", "image/png"),
        (rb"RIFF.{4}WEBP", "WebP", "image/webp"),
        (rb"GIF8[79]a", "GIF", "image/gif"),
        (rb"BM", "BMP", "image/bmp"),
        (rb"II[*+]\0|MM\0[*+]", "TIFF", "image/tiff"),
        (rb".{4}ftyp.{0,48}?avi[fs]", "AVIF", "image/avif"),
        (rb".{4}ftyp(?:hei|hev|mif1|msf1)", "HEIC", "image/heic"),
        (rb"\0{3}\x0cjP  \r\n|\xff\x4f\xff\x51", "JPEG 2000", None),
        (rb"\0{3}\x0cJXL |\xff\x0a", "JPEG XL", None),
        (rb"8BPS", "Photoshop", None),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", None),
        (rb"%PDF", "PDF", None),
        (rb"SIMPLE  =", "FITS", None),
        (rb"\0\0[\1\2]\0", "ICO", None),
        (rb"P[1-7][ \t\r\n]", "PNM", None),
    )
)


def signature_of(data: bytes) -> Signature | None:
    """The signature that matches the beginning of `data`, or None."""
    return next((signature for signature in SIGNATURES if signature.begins.match(data)), None)
