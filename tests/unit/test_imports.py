"""What a fresh interpreter loads with a part of the program: indirect imports count too."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import constellate

PROGRAM = """
import sys
import {module}
print(*sorted({{"ray", "torch", "umap", "transformers", "duckdb"}} & set(sys.modules)))
"""
LOADED = """
import sys
before = {{name.partition(".")[0] for name in sys.modules}}
import {module}
roots = {{name.partition(".")[0] for name in sys.modules}} - before - sys.stdlib_module_names
print(*sorted(roots), *({{"serve_app.api"}} & set(sys.modules)))
"""
CLIENT = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from constellate import AsyncConstellate, Constellate, Unreachable

try:
    with Constellate("http://127.0.0.1:9") as service:
        service.datasets()
except Unreachable as error:
    print(error)
asyncio.run(AsyncConstellate("http://127.0.0.1:9").close())
"""
CLIENT_NEEDS = ("anyio", "certifi", "h11", "httpcore", "httpx", "httpx_sse", "idna", "typing_extensions.py")


@pytest.mark.parametrize(
    # The API names the store's methods, which run in another process.
    ("module", "expected"),
    [("serve_app.api", []), ("serve_app.store.executor", ["duckdb"])],
)
def test_plain_modules_load_neither_ray_nor_torch_and_only_the_stores_process_loads_duckdb(module, expected):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, check=True, timeout=240
    )
    assert ran.stdout.split() == expected


def test_what_the_raylet_starts_for_each_worker_loads_the_standard_library_alone():
    assert _loaded("deployments.worker_entry") == ["deployments"]


def test_the_template_loads_nothing_before_it_knows_the_variables_of_workers():
    assert _loaded("deployments.worker_template") == ["deployments"]


def test_the_process_that_deploys_loads_no_routes():
    assert "serve_app.api" not in _loaded("serve_app.main")


def _loaded(module: str) -> list[str]:
    """The roots of what a fresh interpreter loads with a module, without the standard library; and our routes."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module)], capture_output=True, text=True, check=True, timeout=240
    )
    return ran.stdout.split()


def test_the_client_works_where_only_an_http_library_is_installed(tmp_path: Path):
    installed = Path(sysconfig.get_path("purelib"))
    for name in CLIENT_NEEDS:
        (tmp_path / name).symlink_to(installed / name)
    (tmp_path / "constellate").symlink_to(Path(constellate.__file__).parent)
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CLIENT.format(folder=str(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("the service at http://127.0.0.1:9 does not answer")
