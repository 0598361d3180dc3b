"""Images inside JSON: `data:image/png;base64,…` (RFC 2397)."""

import base64
import binascii
import re

from serve_app.errors import InvalidRequest

_HEAD = re.compile(r"data:(?:(?:image/[\w.+-]+|application/octet-stream)(?:;[\w.+-]+=[^;,]*)*)?;base64,", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def decode(text: str) -> bytes:
    """The bytes of an image's data URI. The media type is ignored, because the bytes themselves show the format.

    The base64 may lack its padding and may be broken into lines, as many programs write it.

    Raises:
        InvalidRequest: the text is not a base64 data URI of an image; the message says what it is.
    """
    head = _HEAD.match(text)
    if head is None:
        raise InvalidRequest(_what_it_is(text))
    try:
        content = text[head.end() :].encode("ascii").translate(None, b" \t\r\n")
        padding = b"" if content.endswith(b"=") else b"=" * (-len(content) % 4)
        return base64.b64decode(content + padding, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidRequest("the data URI's content is not base64") from None


def is_text(text: str) -> bool:
    """Whether an input is words: neither a data URI nor a URL, which people mean as an image."""
    return not _URL.match(text) and text[:5].lower() != "data:"


def _what_it_is(text: str) -> str:
    if _URL.match(text):
        return "URLs are not fetched here: send the image itself as data:image/…;base64,…"
    if text[:5].lower() == "data:":
        return "only data:image/…;base64,… is taken here, not a data URI of another kind"
    return "text cannot be embedded: this model sees images only, each as data:image/…;base64,…"
