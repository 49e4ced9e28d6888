"""Classifiers and encoders behind HTTP."""

import asyncio
import base64
import json

import numpy as np
import pytest
import torch

from framework.config import LimitsConfig, ModelSource, ServeConfig
from framework.inference.classification import classify
from tests.inference.server.running import in_process

TEXTS = ["the river grows", "a", "stone of soil, running 12 and naïve trees\njumped over 日本語", "the tree."]


def post(model, path, *bodies, **limits):
    """The answers to bodies that are sent at once."""

    async def work():
        config = ServeConfig(model=ModelSource(str(model)), name="served", limits=LimitsConfig(**limits))
        async with in_process(config) as client:
            return await asyncio.gather(*(client.post(path, json=body) for body in bodies))

    return asyncio.run(work())


def test_classes_are_those_of_the_classifier(classifier):
    expected = classify(classifier, [*TEXTS, ("a tree", "the river")])
    together, *alone = post(
        classifier,
        "/v1/classify",
        {"input": [*TEXTS, ["a tree", "the river"]]},
        *({"input": text, "model": "served"} for text in TEXTS),
    )
    found = together.json()
    assert found["classes"] == ["soil", "stone, wet", "tree"]
    assert found["several"] is False
    np.testing.assert_allclose([one["probs"] for one in found["data"]], expected, rtol=0, atol=1e-6)
    assert [one["label"] for one in found["data"]] == [found["classes"][place] for place in expected.argmax(axis=1)]
    for answer, row in zip(alone, expected, strict=False):
        np.testing.assert_allclose(answer.json()["data"][0]["probs"], row, rtol=0, atol=1e-6)


def test_embeddings_are_mean_last_hidden_states(encoder):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModel.from_pretrained(encoder, dtype=torch.float32).eval()
    expected = []
    for text in TEXTS:
        inputs = tokenizer("<|endoftext|>" + text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state.double().mean(dim=1)[0]
        expected.append((mean / mean.norm()).numpy())
    together, packed, *alone = post(
        encoder,
        "/v1/embeddings",
        {"input": TEXTS},
        {"input": TEXTS, "encoding_format": "base64"},
        *({"input": text} for text in TEXTS),
    )
    found = [one["embedding"] for one in together.json()["data"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    coded = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in packed.json()["data"]]
    np.testing.assert_allclose(coded, expected, rtol=0, atol=1e-5)
    for answer, row in zip(alone, expected, strict=True):
        np.testing.assert_allclose(answer.json()["data"][0]["embedding"], row, rtol=0, atol=1e-5)
    lengths = [len(tokenizer("<|endoftext|>" + text).input_ids) for text in TEXTS]
    assert together.json()["usage"] == {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}


def test_tokens_are_embedded_as_they_are(encoder):
    from framework.model.tokenizer import load_tokenizer

    ids = load_tokenizer(encoder).encode_whole([(TEXTS[0], None)])
    one, other = post(encoder, "/v1/embeddings", {"input": TEXTS[0]}, {"input": ids})
    assert one.json()["data"] == other.json()["data"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": ["the tree " * 40]}, "text 0 has"),
        ({"input": ["a", []]}, "input: must be a text"),
        ({"input": [[360]]}, "has token 360; the model 360"),
        ({"input": "a", "dimensions": 4}, "dimensions: is not supported"),
        ({"input": ["a"] * 5}, "input: has 5 texts; limits.texts allows 4"),
        ({"input": "a", "encoding_format": "text"}, "encoding_format: Input should be"),
    ],
    ids=["long", "empty", "foreign token", "dimensions", "many", "format"],
)
def test_what_cannot_be_embedded_is_refused(encoder, body, said):
    (answer,) = post(encoder, "/v1/embeddings", body, texts=4)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_what_cannot_be_classified_is_refused(classifier):
    long, other = post(classifier, "/v1/classify", {"input": ["a", "the tree " * 40]}, {"input": [["a", "b", "c"]]})
    assert (long.status_code, other.status_code) == (400, 400)
    assert "text 1: has" in long.json()["error"]["message"]
    (missing,) = post(classifier, "/v1/completions", {"prompt": "a"})
    assert "is a classifier; it answers /v1/classify" in missing.json()["error"]["message"]


def test_requests_share_batches_and_who_left_is_left_out(classifier):
    from framework.inference.classification import TextClassifier

    judged = []

    async def work():
        config = ServeConfig(model=ModelSource(str(classifier)), limits=LimitsConfig(queue=20))
        async with in_process(config) as client:
            thread = client.served.thread
            compute = thread._compute
            thread._compute = lambda texts: (judged.append(len(texts)), compute(texts))[1]
            with thread._changed:  # nothing is taken while this is held
                tasks = [asyncio.create_task(thread.rows([[5, 6], [7]])) for _ in range(20)]
                await asyncio.sleep(0)
                full = await client.post("/v1/classify", json={"input": "a"})
                for task in tasks[:5]:
                    task.cancel()
                await asyncio.sleep(0.01)
            rows = await asyncio.gather(*tasks[5:])
            return full, rows

    full, rows = asyncio.run(work())
    assert full.status_code == 429
    assert full.headers["Retry-After"] == "1"
    assert judged == [30]
    alone = TextClassifier(classifier).judge([[5, 6], [7]])
    for found in rows:
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)


def test_the_official_client_gets_embeddings(encoder):
    """It asks for base64, whatever its user asks."""
    openai = pytest.importorskip("openai")
    from tests.inference.server.running import running

    with running(encoder, "name=served") as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        found = client.embeddings.create(model="served", input=TEXTS)
        assert [one.index for one in found.data] == [0, 1, 2, 3]
        np.testing.assert_allclose(np.linalg.norm([one.embedding for one in found.data], axis=1), 1, atol=1e-6)
        assert len(json.dumps(found.data[0].embedding)) > 100
