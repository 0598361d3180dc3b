import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from serve_app.embedding import converter, ir_cache, loading
from serve_app.embedding.ir_cache import _run_converter as convert_in_a_process
from serve_app.errors import ModelUnavailable
from tests.converted_models import CACHE_DIR
from tests.tiny_models import make_tiny_checkpoint
from tests.unit.processor import needs_precision

SMALL = {"hidden": 48, "heads": 2, "layers": 1, "image_px": 56, "resize_px": 64, "crop_px": 56}
LOADING = """
import sys
from pathlib import Path
from serve_app.embedding import loading, weights
loading.load(weights.locate({checkpoint!r}), name="tiny", cache_dir=Path({cache!r}), device="auto")
loaded = {{name for name in ("torch", "transformers", "openvino_telemetry") if sys.modules.get(name)}}
print(*sorted(loaded))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("small") / "tiny", **SMALL)


@pytest.fixture
def conversions(monkeypatch):
    """The graphs that were written, in order."""
    made, convert = [], ir_cache._run_converter
    monkeypatch.setattr(ir_cache, "_run_converter", lambda wanted, graph: made.append(graph) or convert(wanted, graph))
    return made


def load(checkpoint, cache_dir, **options):
    return loading.load(checkpoint, name="tiny", cache_dir=cache_dir, device="cpu", threads=1, **options)


def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize("cached", [False, True])
def test_loading_on_a_cpu_imports_neither_torch_nor_transformers_nor_telemetry(checkpoint, tmp_path, cached):
    if cached:
        load(checkpoint, CACHE_DIR)
    code = LOADING.format(checkpoint=str(checkpoint), cache=str(CACHE_DIR if cached else tmp_path))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert ran.stdout.split() == []


def test_a_checkpoint_is_converted_once(checkpoint, tmp_path, conversions):
    vectors = [load(checkpoint, tmp_path).vectors(pixels()) for _ in range(2)]
    assert len(conversions) == 1
    np.testing.assert_array_equal(*vectors)


@needs_precision("int8")
def test_int8_has_a_conversion_of_its_own_with_smaller_weights(checkpoint, tmp_path, conversions):
    precisions = ("fp32", "int8", "int8", "fp32")
    models = [load(checkpoint, tmp_path, precision=precision) for precision in precisions]
    assert [model.card.precision for model in models] == [*precisions]
    sizes = [graph.stat().st_size for graph in (tmp_path / "openvino").rglob("graph.bin")]
    assert len(conversions) == len(sizes) == 2
    assert min(sizes) < 0.9 * max(sizes)


HOLDING = """
import sys
from pathlib import Path
from serve_app.embedding import ir_cache
print(ir_cache._hold(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def conversions_in(cache_dir):
    """The folders of conversions, the last used first."""
    folders = [path for path in (cache_dir / "openvino").iterdir() if path.is_dir()]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def convert_another(tmp_path, monkeypatch, kept_bytes):
    """Convert one more checkpoint as if nothing held the conversions of this process, which are all a day old."""
    for folder in conversions_in(tmp_path):
        os.close(ir_cache._held.pop(folder))
        os.utime(folder, (time.time() - 86400,) * 2)
    monkeypatch.setattr(ir_cache, "KEPT_BYTES", kept_bytes)
    load(make_tiny_checkpoint(tmp_path / "another", **SMALL | {"seed": 1}), tmp_path)


def test_conversions_that_were_not_used_lately_are_removed(checkpoint, tmp_path, monkeypatch):
    load(checkpoint, tmp_path)
    [old] = conversions_in(tmp_path)
    convert_another(tmp_path, monkeypatch, kept_bytes=sum(file.stat().st_size for file in old.iterdir()) * 3 // 2)
    [new] = conversions_in(tmp_path)
    assert new != old


def test_conversions_that_fit_are_kept(checkpoint, tmp_path, monkeypatch):
    load(checkpoint, tmp_path)
    convert_another(tmp_path, monkeypatch, kept_bytes=ir_cache.KEPT_BYTES)
    assert len(conversions_in(tmp_path)) == 2


def test_a_conversion_that_another_process_has_loaded_is_not_removed(checkpoint, tmp_path, monkeypatch):
    load(checkpoint, tmp_path)
    [old] = conversions_in(tmp_path)
    command = [sys.executable, "-c", HOLDING, str(old)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        convert_another(tmp_path, monkeypatch, kept_bytes=0)
        other.stdin.close()
    assert old in conversions_in(tmp_path)
    assert ir_cache._remove(old), "nobody holds it after the end of the process"


def test_loading_counts_as_use(checkpoint, tmp_path):
    load(checkpoint, tmp_path)
    [folder] = conversions_in(tmp_path)
    os.utime(folder, (0, 0))
    load(checkpoint, tmp_path)
    assert folder.stat().st_mtime > 0


def _cut(folder):
    file = folder / "graph.bin"
    file.write_bytes(file.read_bytes()[:-100])


def _flip(folder):
    file = folder / "graph.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)


def _lose(folder):
    (folder / "graph.xml").unlink()


def _scribble(folder):
    (folder / "checksums.json").write_text("[]")


@pytest.mark.parametrize("damage", [_cut, _flip, _lose, _scribble])
def test_a_damaged_conversion_is_made_again(checkpoint, tmp_path, conversions, damage):
    expected = load(checkpoint, tmp_path).vectors(pixels())
    [folder] = (path for path in (tmp_path / "openvino").iterdir() if path.is_dir())
    damage(folder)
    np.testing.assert_array_equal(load(checkpoint, tmp_path).vectors(pixels()), expected)
    assert len(conversions) == 2


def test_of_several_replicas_one_converts_and_the_others_wait(checkpoint, tmp_path, conversions):
    threads = [threading.Thread(target=load, args=(checkpoint, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1


def test_what_a_killed_conversion_left_is_removed(checkpoint, tmp_path, conversions):
    load(checkpoint, tmp_path)
    [folder] = (path for path in (tmp_path / "openvino").iterdir() if path.is_dir())
    _lose(folder)
    leftover = folder.with_name(f".{folder.name}-killed")
    (leftover / "ir").mkdir(parents=True)
    load(checkpoint, tmp_path)
    assert not leftover.exists()


def test_a_cache_that_cannot_be_written_makes_the_model_unavailable_and_is_named(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailable, match="CONSTELLATE_CACHE_DIR"):
        load(checkpoint, tmp_path / "file")


def test_a_converter_that_dies_makes_the_model_unavailable_and_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(ir_cache, "_run_converter", convert_in_a_process)
    monkeypatch.setattr(ir_cache, "CONVERTER", "serve_app.embedding.no_such_converter")
    with pytest.raises(ModelUnavailable, match=r"ended with status 1: .*no_such_converter"):
        load(checkpoint, tmp_path)
    assert [path.suffix for path in (tmp_path / "openvino").iterdir()] == [".lock"]


@pytest.fixture
def damaged(checkpoint, tmp_path):
    """A checkpoint that the converter cannot load."""
    directory = shutil.copytree(checkpoint, tmp_path / "tiny")
    (directory / "model.safetensors").write_bytes(b"no tensors here")
    return directory


def test_the_converter_prints_what_is_wrong_with_a_checkpoint_and_ends_with_a_status_for_that(
    damaged, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["converter", str(damaged), "tiny", "fp32", str(tmp_path / "graph.xml")])
    with pytest.raises(SystemExit) as ended:
        converter.main()
    assert ended.value.code == converter.UNUSABLE
    told = capsys.readouterr().out
    assert told.startswith("the checkpoint of tiny does not load")
    assert str(tmp_path) not in told


def test_what_the_converter_prints_about_a_checkpoint_is_told(checkpoint, tmp_path, monkeypatch):
    program = f"import sys\nprint('no tensors in', sys.argv[2])\nsys.exit({converter.UNUSABLE})"
    (tmp_path / "refuses.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ir_cache, "_run_converter", convert_in_a_process)
    monkeypatch.setattr(ir_cache, "CONVERTER", "refuses")
    with pytest.raises(ModelUnavailable, match=r"^no tensors in tiny$"):
        load(checkpoint, tmp_path / "cache")


@pytest.mark.every  # the two tests above, in the one process that imports PyTorch
def test_a_process_converts_and_says_what_is_wrong_with_a_checkpoint(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(ir_cache, "_run_converter", convert_in_a_process)
    with pytest.raises(ModelUnavailable, match="the checkpoint of tiny does not load") as caught:
        load(damaged, tmp_path / "cache")
    assert str(tmp_path) not in str(caught.value)
