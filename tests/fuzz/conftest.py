import http.client

import httpx
import pytest

from tests.fuzz.service import API_KEY, FuzzedService


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service without datasets, for the tests of one file."""
    service = FuzzedService(tmp_path_factory.mktemp("service"))
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def http_client(service):
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=service.settings.url, headers=headers, timeout=240) as client:
        yield client


@pytest.fixture
def raw(service):
    """Send a request with an unchanged target; other clients would normalise it."""

    def send(method, target, *, headers=None, body=None):
        connection = http.client.HTTPConnection(service.settings.host, service.settings.port, timeout=240)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in ({"Authorization": f"Bearer {API_KEY}"} | (headers or {})).items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return send
