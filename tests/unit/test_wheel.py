"""The wheel: built from the tracked files, as a package index would hold it, and used without this folder."""

import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sysconfig.get_path("purelib"))
CLIENT_NEEDS = (
    *("annotated_doc", "annotated_types", "anyio", "certifi", "click", "h11", "httpcore", "httpx", "httpx_sse", "idna"),
    *("markdown_it", "mdurl", "pydantic", "pydantic_core", "pygments", "rich", "shellingham", "typer"),
    *("typing_extensions.py", "typing_inspection"),
)
"""What the wheel's requirements without extras install, with what those require."""

PAGE = """
import asyncio, httpx
from serve_app.api import create_app
from serve_app.config import Settings

async def read(*paths):
    transport = httpx.ASGITransport(create_app(Settings(), lambda: None))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        for path in paths:
            answer = await client.get(path)
            print(path, answer.status_code, len(answer.content))

asyncio.run(read("/", *{files!r}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the tracked files: a build leaves files where it runs."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if (ROOT / name).is_file():
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    # pip would do the same in three processes.
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / built.stdout.splitlines()[-1]


def pip(python, *arguments):
    made = subprocess.run([python, "-m", "pip", "--quiet", *map(str, arguments)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def unpacked(wheel):
    folder = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(program, *arguments, folders, cwd):
    """Run a program that finds modules in these folders and in Python's own library alone."""
    program = f"import sys\nsys.path[:0] = {list(map(str, folders))!r}\n{program}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


def test_the_wheel_has_the_packages_with_their_files_and_nothing_else(unpacked):
    def files(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}

    packages = {"constellate", "serve_app", "deployments"}
    assert {path.name for path in unpacked.iterdir()} == packages | {"constellate-0.1.0.dist-info"}
    for package in packages:
        assert files(unpacked / package) == files(ROOT / package)


def test_without_extras_it_requires_neither_ray_nor_torch(unpacked):
    [metadata] = unpacked.glob("*.dist-info/METADATA")
    required = message_from_string(metadata.read_text()).get_all("Requires-Dist")
    assert sorted(each for each in required if "extra ==" not in each) == [
        "httpx",
        "httpx-sse",
        "pydantic>=2",
        "rich",
        "typer",
    ]
    of_service = " ".join(each for each in required if each.endswith('extra == "service"'))
    assert all(name in of_service for name in ("ray[serve]", "torch", "duckdb"))


def test_the_page_of_an_installed_service_is_whole(unpacked, tmp_path):
    page = ROOT / "serve_app" / "static"
    files = [f"/static/{path.relative_to(page)}" for path in sorted(page.rglob("*")) if path.is_file()]
    shown = run(PAGE.format(files=files), folders=[unpacked, INSTALLED], cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    answers = [line.split() for line in shown.stdout.splitlines()]
    assert [path for path, _, _ in answers] == ["/", *files]
    assert {status for _, status, _ in answers} == {"200"}


@pytest.fixture
def client_alone(unpacked, tmp_path):
    """Run the command where the wheel is installed without extras."""
    for name in CLIENT_NEEDS:
        (tmp_path / name).symlink_to(INSTALLED / name)

    def command(*arguments):
        program = "from serve_app.cli import main\nmain()"
        return run(program, *arguments, folders=[unpacked, tmp_path], cwd=tmp_path)

    return command


def test_the_commands_of_the_client_alone_explain_themselves_and_say_what_the_service_needs(client_alone):
    assert "duplicates" in client_alone("--help").stdout
    asked = client_alone("status", "--port", "9")
    assert (asked.returncode, "start one with `constellate serve`" in asked.stderr) == (3, True), asked.stderr
    serving = client_alone("serve")
    assert serving.returncode == 3
    assert serving.stderr.endswith("which comes with the service: pip install 'constellate[service]'\n")


@pytest.mark.every
def test_pip_installs_the_client_alone_into_an_empty_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip(python, "install", wheel)
    program = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    installed = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "constellate" in installed
    assert not {"ray", "torch", "duckdb", "numpy", "pyarrow", "fastapi"} & set(installed)
    shown = subprocess.run([python.with_name("constellate"), "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert (shown.returncode, "duplicates" in shown.stdout) == (0, True), shown.stderr
