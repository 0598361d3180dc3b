"""A model with real towers, by PyTorch in this process, where a service has a fake."""

import numpy as np

from serve_app.embedding import weights
from serve_app.embedding.checkpoint import preprocessing_of
from serve_app.embedding.model import ModelRequest
from serve_app.embedding.torch_model import TorchModel
from serve_app.images.decode import decode
from serve_app.services import Embedded
from tests.live_service import FakeFileEmbedder


class Tower(FakeFileEmbedder):
    """Embeds with the checkpoint of a folder; images that cannot be decoded are not expected."""

    def __init__(self, name):
        directory = weights.locate(name)
        self.model = TorchModel.load(ModelRequest(directory, name, preprocessing_of(directory), "cpu", "fp32"))

    async def describe(self, model):
        return self.model.card

    async def embed_images(self, model, images):
        pixels = np.stack([decode(image, self.model.preprocessing) for image in images])
        return Embedded(self.model.card, list(self.model.vectors(pixels)))

    async def embed_texts(self, model, texts):
        vectors, cut = self.model.text().vectors(texts)
        return Embedded(self.model.card, list(vectors), tuple(cut))
