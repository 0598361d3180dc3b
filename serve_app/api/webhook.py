"""Checks the URL to which a request wants a job's end to be told."""

from serve_app.config import Settings
from serve_app.errors import InvalidRequest
from serve_app.sources.roots import allows
from serve_app.urls import WEB, parse


def checked(notify_url: str | None, settings: Settings) -> str | None:
    """The canonical spelling of the URL, None if there is none.

    Raises:
        InvalidRequest: the service has no key to sign with, or the URL is not one of the web below a dataset root.
    """
    if notify_url is None:
        return None
    if settings.notify_key is None:
        raise InvalidRequest("notify_url: the service signs what it sends; start it with CONSTELLATE_NOTIFY_KEY")
    url = parse(notify_url, with_query=True)
    if url.scheme not in WEB or not url.host or not allows(url, settings.dataset_roots):
        raise InvalidRequest("notify_url is no http(s) URL below one of DATASET_ROOTS; add its host there")
    return str(url)
