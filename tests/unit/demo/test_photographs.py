import importlib.util
from collections import Counter

import pytest
from PIL import Image

from demo.photographs import PHOTOGRAPHS, write_tiles
from serve_app.errors import Unavailable


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("demo") / "tiles")


def test_every_photograph_is_in_the_installed_package_and_becomes_sixteen_tiles(tiles):
    files = sorted(tiles.rglob("*.png"))
    assert Counter(file.parent.name for file in files) == dict.fromkeys(PHOTOGRAPHS, 16)
    assert len(PHOTOGRAPHS) >= 12
    for file in files:
        with Image.open(file) as tile:
            assert min(tile.size) >= 40


def test_tiles_are_the_photograph_cut_in_rows_and_columns(tiles):
    source = importlib.util.find_spec("skimage").submodule_search_locations[0]
    with (
        Image.open(f"{source}/data/astronaut.png") as photograph,
        Image.open(tiles / "astronaut/astronaut-12.png") as cut,
    ):
        assert cut.tobytes() == photograph.crop((256, 128, 384, 256)).tobytes()


def test_nothing_but_the_tiles_is_left_and_a_folder_that_is_there_is_left_alone(tiles, monkeypatch):
    assert [entry.name for entry in tiles.parent.iterdir()] == ["tiles"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert write_tiles(tiles) == tiles


def test_an_interrupted_cut_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("demo.photographs._cut", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_tiles(tmp_path / "tiles")
    assert list(tmp_path.iterdir()) == []


def test_without_scikit_image_the_message_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"pip install scikit-image.*your own folder"):
        write_tiles(tmp_path / "tiles")
