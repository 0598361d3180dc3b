"""URLs of datasets and images: their schemes, their canonical spelling, and which URL lies below which.

`parse` gives each URL one canonical spelling, so that "below" is a plain comparison of parts.
"""

import re
import string
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from serve_app.errors import InvalidRequest

CLOUD = frozenset({"s3", "gs", "az", "hf"})
WEB = frozenset({"http", "https"})
MAX_URL_CHARS = 4096

_LOOKS_LIKE = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
# In a list separated by ':', a URL ends before the next ':' that does not begin its port. Its path cannot have a ':'.
_ENTRY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:\[[^\]]*\])?[^:]*(?::[0-9]{1,5}(?=[/:]|$)[^:]*)?|[^:]+")
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
_SAFE = "%!$&'()*+,;=:@~"
_PORTS = {"http": 80, "https": 443}


class Url(NamedTuple):
    """A checked URL; `str` gives its canonical spelling.

    `parts` is the path below the host or bucket; for URLs of the web it is percent-encoded. Only images of the web have
    a `query`.
    """

    scheme: str
    host: str
    parts: tuple[str, ...]
    query: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{'/'.join((self.host, *self.parts))}" + (f"?{self.query}" if self.query else "")

    def is_below(self, root: "Url") -> bool:
        """Whether this is `root` or lies below it; every URL of a scheme is below a root without a host."""
        return (
            self.scheme == root.scheme and root.host in ("", self.host) and self.parts[: len(root.parts)] == root.parts
        )

    def child(self, name: str) -> "Url":
        """The URL of a relative, checked name below this URL."""
        parts = (quote(part) if self.scheme in WEB else part for part in name.split("/"))
        return self._replace(parts=(*self.parts, *parts))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.parts[-1] if self.parts else self.host

    @property
    def parent(self) -> "Url":
        """The URL of the folder that contains this one."""
        return self._replace(parts=self.parts[:-1], query="")


def is_url(text: str) -> bool:
    """Whether a text is a URL and not a path."""
    return _LOOKS_LIKE.match(text) is not None


def split_roots(text: str) -> list[str]:
    """Split a list of folders and URLs at ':'.

    A ':' between a scheme and '//', or between a host and a port, belongs to its URL. The path of a URL in such a list
    cannot have a ':'.
    """
    return _ENTRY.findall(text)


def parse(text: str, *, with_query: bool = False) -> Url:
    """Check a URL and give it its canonical spelling: lower-case host, no default port, no empty, '.' or '..' part.

    Args:
        text: the URL as somebody wrote it.
        with_query: allow a query, which images of the web may have (signed URLs).

    Raises:
        InvalidRequest: the scheme is unknown, or two readers could understand the URL differently.
    """
    scheme = text.partition("://")[0].lower()
    if scheme not in CLOUD | WEB:
        raise InvalidRequest(f"URLs begin with {', '.join(sorted(f'{s}://' for s in CLOUD | WEB))}, not {scheme!r}")
    if len(text) > MAX_URL_CHARS or _CONTROL.search(text) or not _is_unicode(text):
        raise InvalidRequest(f"a URL has at most {MAX_URL_CHARS} characters and no blanks, control characters or '\\'")
    web = scheme in WEB
    host, path, query = _split_web(text) if web else (*_split_cloud(text), "")
    if query and not with_query:
        raise InvalidRequest("the URL of a dataset has no '?'")
    parts = tuple(path.strip("/").split("/")) if path.strip("/") else ()
    for part in map(unquote, parts) if web else parts:
        if part in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(part):
            raise InvalidRequest("the path of a URL has no empty, '.' or '..' part and no encoded slash")
    parts = tuple(quote(part, safe=_SAFE) for part in parts) if web else parts
    return Url(scheme, host, parts, quote(query, safe=string.punctuation))  # what is ASCII stays as it is


def _split_web(text: str) -> tuple[str, str, str]:
    try:
        split = urlsplit(text)
        port = split.port
        host = (split.hostname or "").encode("idna").decode() if ":" not in (split.hostname or "") else split.hostname
    except (ValueError, UnicodeError):
        raise InvalidRequest("the host of the URL cannot be read") from None
    if "@" in split.netloc or split.fragment or "#" in text:
        raise InvalidRequest("URLs carry no user, password or '#'; keys come from the service's environment")
    host = f"[{host}]" if host and ":" in host else host or ""
    return (host if port in (None, _PORTS[split.scheme]) else f"{host}:{port}"), split.path, split.query


def _split_cloud(text: str) -> tuple[str, str]:
    host, _, path = text.partition("://")[2].partition("/")
    if "@" in host or "?" in text or "#" in text:
        raise InvalidRequest("URLs of buckets carry no '@', '?' or '#'; keys come from the service's environment")
    return host, path


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
