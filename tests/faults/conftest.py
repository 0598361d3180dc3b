"""Fixtures: one real service for the fault tests, and a dataset whose right vectors are known."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.checkpoints import tiny_checkpoint
from tests.faults.album import Album
from tests.faults.service import Service
from tests.faults.wait import until
from tests.invariants import check_invariants
from tests.ray.photographs import make_folder

N_IMAGES = 64
"""Five times as many as are in flight; what kills a process in the middle of a job uses `Album.half_way`."""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("faults")
    service = Service(base, tiny_checkpoint(base / "tiny-dinov2"))
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
    """An album that was embedded without any fault; its vectors equal those of the model in this process."""
    album = Album.register(service, make_folder(service.roots / "album", n_images=N_IMAGES))
    album.embed()
    album.remember(service.settings.model)
    return album


@pytest.fixture
def album(service: Service, reference: Album) -> Iterator[Album]:
    """The album, complete and idle; after the test, it is completed and checked."""
    if not service.is_up:
        service.start()
    service.await_ready()
    yield reference
    if service.is_up:
        reference.settle()
        reference.check()


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Leave the cores to the service, by using one thread in this process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
