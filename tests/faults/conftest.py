"""One real service for the fault tests, and a dataset whose every vector is known."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults.album import Album
from tests.faults.service import Service
from tests.faults.wait import until
from tests.invariants import check_invariants
from tests.ray.photographs import make_folder
from tests.tiny_models import make_tiny_checkpoint

N_IMAGES = 128
"""Six seconds of work and more for one replica on one core: time enough to kill something in the middle."""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("faults")
    service = Service(base, make_tiny_checkpoint(base / "tiny-dinov2"))
    try:
        service.start()
        yield service
        if service.is_up:
            service.stop(signal.SIGINT)
            assert service.exit_code == 0
            until(lambda: not service.processes(), lambda: str(service.processes()))
        check_invariants(service.settings.database_path)
    finally:
        service.kill_all()


@pytest.fixture(scope="session")
def reference(service: Service) -> Album:
    """An album embedded once without any fault, its vectors compared with those of the model in this process."""
    album = Album.register(service, make_folder(service.roots / "album", n_images=N_IMAGES))
    album.embed()
    album.remember(service.settings.model)
    return album


@pytest.fixture
def album(service: Service, reference: Album) -> Iterator[Album]:
    """The dataset, whole and idle; whatever the test does to it, it is whole again afterwards."""
    if not service.is_up:
        service.start()
    service.await_ready()
    reference.check()
    yield reference
    if service.is_up:
        reference.settle()
        reference.check()


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Leave the cores to the service."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
