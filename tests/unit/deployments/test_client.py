"""How a client encodes pictures: one odd picture never fails the others of its batch, and none changes silently.

How it sends texts.
"""

import io

import numpy as np
import pytest
from PIL import Image

from deployments.client import EmbeddingClient, _encoded
from serve_app.errors import InvalidImage, InvalidRequest, NoTextTower, ServiceError
from serve_app.images.decode import decode
from serve_app.images.preprocessing import Preprocessing
from serve_app.records import ModelCard, Skip
from serve_app.services import Embedded
from tests.fakes import FakeEmbedder, FakeModel
from tests.unit.deployments.local_handle import LocalHandle

CARD = ModelCard("model", 3, "key", "cpu", "fp32")
SMALL = Preprocessing(resize_px=4, crop_px=4)


class MeanColour(EmbeddingClient):
    """A client whose replica is here: the vector is the picture's mean colour."""

    async def _ask(self, method, *args):
        if method == "describe":
            return CARD
        return Embedded(CARD, [decode(file, SMALL).mean((0, 1)).astype(np.float32) for file in args[0]])


MODES = [
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"),
    *("CMYK", "YCbCr", "LAB", "HSV", "F", "I", "I;16", "I;16B"),
]


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_is_encoded(mode):
    """A CMYK or float picture raised an OSError for its whole batch."""
    with Image.open(io.BytesIO(_encoded(Image.new(mode, (3, 2))))) as decoded:
        assert decoded.size == (3, 2)


@pytest.mark.parametrize("mode", ["La", "PA", "RGBa"])
def test_an_invisible_picture_stays_invisible(mode):
    """Such modes became RGB, so that hidden colours were seen."""
    assert decode(_encoded(Image.new(mode, (4, 4), 0)), SMALL).min() == 255


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int16])
def test_grey_numbers_without_a_range_are_taken_as_a_tiff_of_them_is(dtype):
    """Values between 0 and 1 became black, and those over 255 white."""
    pixels = np.array([[0, 1], [2, 3]]).astype(dtype) if np.dtype(dtype).kind == "i" else np.eye(2, dtype=dtype)
    decoded = decode(_encoded(np.kron(pixels, np.ones((8, 8), dtype))), SMALL)
    assert decoded.min() < 10
    assert decoded.max() > 245


def test_sixteen_bit_pixels_of_either_byte_order_keep_their_brightness():
    """Big-endian ones were clipped to white."""
    for order in "<>":
        grey = _encoded(Image.fromarray(np.full((8, 8), 257 * 100, f"{order}u2")))
        assert set(decode(grey, SMALL).flat) == {100}


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((2, 2, 7), np.uint8), "uint8 pixels of shape (2, 2, 7)"),
        (np.zeros((2, 2, 3), np.float64), "float64 pixels of shape (2, 2, 3)"),
        (np.zeros((0, 0, 3), np.uint8), "uint8 pixels of shape (0, 0, 3)"),
        ([[0, 1], [1, 0]], "list"),
    ],
)
def test_pixels_that_are_no_picture_are_refused_with_the_way_out(pixels, said):
    refused = _encoded(pixels)
    assert isinstance(refused, Skip)
    assert said in refused.detail
    assert "uint8 pixels of shape (H, W)" in refused.detail


def test_odd_pictures_and_missing_files_are_refused_alone_and_by_their_position(tmp_path):
    """A file that was not there failed its whole batch, and colours between 0 and 1 were told to be an empty file."""
    red, colours = Image.new("RGB", (4, 4), (200, 0, 0)), np.full((4, 4, 3), 0.5, np.float32)
    client = MeanColour(chunk=2)
    found = client.embed_each([colours, red, tmp_path / "gone.png", red])
    assert [one.reason if isinstance(one, Skip) else one.tolist() for one in found] == [
        "format_not_allowed",
        [200, 0, 0],
        "not_found",
        [200, 0, 0],
    ]
    with pytest.raises(InvalidImage, match=r"image 1: float32 pixels of shape \(4, 4, 3\); give uint8"):
        client.embed([red, colours])


class Replica:
    """Answers as `DinoV2` does: its own errors are values."""

    def __init__(self, model):
        self._embedder = FakeEmbedder(model)
        self._name = model.card.name

    async def describe(self):
        return await self._embedder.describe(self._name)

    async def embed_texts(self, texts):
        try:
            return await self._embedder.embed_texts(self._name, texts)
        except ServiceError as error:
            return error


def client_of(model):
    client = EmbeddingClient(chunk=2)
    client._handle = LocalHandle(Replica(model))
    return client


async def test_texts_become_vectors_in_their_order():
    model = FakeModel(no_text="")
    vectors = await client_of(model).embed_text_async(["a", "b", "c"])
    np.testing.assert_array_equal(vectors, np.stack([model.vector(text) for text in (b"a", b"b", b"c")]))
    assert (await client_of(model).embed_text_async([])).shape == (0, model.card.dimension)


async def test_texts_that_were_cut_are_named_by_their_positions():
    with pytest.warns(UserWarning, match=r"cut to the model's length: \[1, 3\]"):
        await client_of(FakeModel(no_text="")).embed_text_async(["a", "b" * 21, "c", "d" * 21])


def test_the_warning_of_texts_that_were_cut_points_to_the_line_of_the_call():
    with pytest.warns(UserWarning, match="cut to the model's length") as warned:
        client_of(FakeModel(no_text="")).embed_text(["b" * 21])
    assert [warning.filename for warning in warned] == [__file__]


async def test_the_warning_of_an_awaited_call_points_to_its_line_too():
    with pytest.warns(UserWarning, match="cut to the model's length") as warned:
        await client_of(FakeModel(no_text="")).embed_text_async(["b" * 21])
    assert [warning.filename for warning in warned] == [__file__]


async def test_texts_that_cannot_be_embedded_say_why():
    with pytest.raises(InvalidRequest, match="empty"):
        await client_of(FakeModel(no_text="")).embed_text_async(["a", ""])
    with pytest.raises(NoTextTower, match="images only"):
        await client_of(FakeModel()).embed_text_async(["a"])
