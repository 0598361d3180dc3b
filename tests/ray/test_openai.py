"""`POST /v1/embeddings` with the real `openai` package."""

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest

from deployments.client import EmbeddingClient
from tests.ray.conftest import Service
from tests.ray.photographs import make_photograph

pytestmark = pytest.mark.ray


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.settings.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def images(service: Service) -> list[bytes]:
    return [make_photograph(service.roots / "openai" / f"{i}.png", 100 + i).read_bytes() for i in range(3)]


def uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"extra_body": {"modality": "image"}}])
def test_the_package_gets_the_vectors_that_a_ray_job_gets(client: openai.OpenAI, images: list[bytes], options: dict):
    answer = client.embeddings.create(model="tiny-dinov2", input=[uri(image) for image in images], **options)
    assert [item.index for item in answer.data] == [0, 1, 2]
    vectors = np.array([item.embedding for item in answer.data], np.float32)
    assert np.allclose(vectors, EmbeddingClient().embed(images), rtol=1e-4, atol=1e-5)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)


def test_one_image_may_stand_alone_and_the_answer_names_the_space(client: openai.OpenAI, images: list[bytes]):
    answer = client.embeddings.create(model="tiny-dinov2", input=uri(images[0]))
    name, _, space = answer.model.partition("@")
    assert name == "tiny-dinov2"
    assert EmbeddingClient().describe().space_key.startswith(space)
    assert client.embeddings.create(model=answer.model, input=uri(images[0])).data[0].embedding


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": "text-embedding-3-small"}, "not the model served here; that is 'tiny-dinov2@"),
        ({"model": "tiny-dinov2@000000000000"}, "not the model served here"),
        ({"input": "a red car"}, "DINOv2 models embed images only"),
        ({"input": "https://example.org/a.png"}, "URLs are not fetched here"),
        ({"input": uri(b"text")}, r"input\[0\]: .*unidentified"),
        ({"dimensions": 256}, "have 768 numbers and are not shortened"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(
    client: openai.OpenAI, images: list[bytes], given: dict, says: str
):
    request = {"model": "tiny-dinov2", "input": uri(images[0])} | given
    with pytest.raises(openai.UnprocessableEntityError, match=says) as refused:
        client.embeddings.create(**request)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.code
