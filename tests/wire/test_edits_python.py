"""Edits and variations by the official OpenAI SDK and by hand: every provider sees the files that the client sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.conftest import Running
from tests.waiting import until
from tests.wire.edit_support import (
    Seen,
    Tap,
    gateway_process,
    large_picture,
    mask_for,
    padded,
    picture,
    posted_to,
    seen,
    sha,
    taps,
)

from imagegate import Config, ImageGateway
from imagegate.config.schema import (
    AccessConfig,
    DeliveryConfig,
    Duration,
    LimitsConfig,
    PolicyConfig,
    TasksConfig,
    UpstreamConfig,
)
from imagegate.demo.servers import serving, write_config

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"


@dataclass(frozen=True)
class Model:
    """What a model takes in edits."""

    name: str
    most: int = 16
    mask: bool = True
    names: bool = True
    """Whether file names reach the provider."""

    @property
    def provider(self) -> str:
        return self.name.partition("/")[0]

    def __str__(self) -> str:
        return self.name


MODELS = [
    Model("tokmodel/openai/dall-e-2", most=1),
    Model("tokmodel/openai/gpt-image-2"),
    Model("tokenbay/gpt-image-2"),
    Model("tokenlab/gpt-image-2"),
    Model("tokenlab/nano-banana-pro", mask=False, names=False),
    Model("tokenlab/grok-imagine-image", most=3, mask=False, names=False),
    Model("toapis/gpt-image-1.5-official"),
    Model("onetoken/gpt-image-2"),
]
every_model = pytest.mark.parametrize("model", MODELS, ids=str)
several_models = pytest.mark.parametrize("model", [model for model in MODELS if model.most > 1], ids=str)
ONE = picture(1)


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    """The SDK as it comes, but for its own retries."""
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(running: Running) -> Iterator[httpx.Client]:
    """Requests by hand."""
    with httpx.Client(base_url=running.url, timeout=60) as http:
        yield http


@pytest.fixture
def tapped(running: Running) -> Iterator[dict[str, Tap]]:
    """What each provider receives during a test."""
    with taps(running.providers) as found:
        yield found


@pytest.fixture
def nothing_sent(running: Running) -> Iterator[None]:
    """No provider gets a whole request during the test."""
    with posted_to(running) as posts:
        yield
    assert posts == {}


def decoded(images: Any) -> list[bytes]:
    """The pictures of a reply, loaded from its links where it has links."""
    found: list[bytes] = []
    for image in images.data:
        content = base64.b64decode(image.b64_json) if image.b64_json else httpx.get(image.url).content
        Image.open(io.BytesIO(content)).load()
        found.append(content)
    return found


def error_of(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of an answer in OpenAI's envelope."""
    assert status == reply.status_code, reply.text[:500]
    error: dict[str, Any] = reply.json()["error"]
    assert list(error)[:4] == ["message", "type", "param", "code"]
    assert error["message"]
    assert error["code"]
    return error


# The SDK


@contextlib.contextmanager
def _opened(path: Path) -> Generator[Any]:
    with path.open("rb") as file:
        yield file


SOURCES: Mapping[str, Any] = {
    "open file": lambda path: (_opened(path), path.name),
    "bytes": lambda path: (contextlib.nullcontext(path.read_bytes()), "upload"),
    "BytesIO": lambda path: (contextlib.nullcontext(io.BytesIO(path.read_bytes())), "upload"),
    "path": lambda path: (contextlib.nullcontext(path), path.name),
    "name and bytes": lambda path: (contextlib.nullcontext(("größe 1.png", path.read_bytes())), "größe 1.png"),
    "name, bytes and type": lambda path: (contextlib.nullcontext(("a.png", path.read_bytes(), "image/png")), "a.png"),
}


@every_model
@pytest.mark.parametrize("source", SOURCES)
def test_one_file(client: openai.OpenAI, tapped: dict[str, Tap], tmp_path: Path, model: Model, source: str) -> None:
    """One file in each way in which the SDK takes it: the provider has the same bytes under the same name."""
    path = tmp_path / "otter.png"
    path.write_bytes(ONE)
    opened, name = SOURCES[source](path)
    with opened as file:
        images = client.images.edit(model=model.name, image=file, prompt="Make it blue")
    assert len(decoded(images)) == 1
    expected = Seen([sha(ONE)], None, [name] if model.names else [])
    assert expected == seen(tapped[model.provider].posts)
    types = {part.content_type for post in tapped[model.provider].posts for part in post.files}
    assert types <= {"image/png"}


@every_model
def test_list_of_one(client: openai.OpenAI, tapped: dict[str, Tap], model: Model) -> None:
    """A list of one file, which the SDK calls ``image[]``, is one file."""
    images = client.images.edit(model=model.name, image=[("one.png", ONE)], prompt="Make it blue")
    assert len(decoded(images)) == 1
    assert Seen([sha(ONE)], None, ["one.png"] if model.names else []) == seen(tapped[model.provider].posts)


THREE = [("c.png", picture(3)), ("a.jpg", picture(4, mode="RGB", form="JPEG")), ("b.webp", picture(5, form="WEBP"))]


@several_models
def test_three_files(client: openai.OpenAI, tapped: dict[str, Tap], model: Model) -> None:
    """Three files of three formats arrive in the client's order, not in that of their names."""
    images = client.images.edit(model=model.name, image=THREE, prompt="Put them together")
    assert len(decoded(images)) == 1
    expected = Seen([sha(content) for _, content in THREE], None, [name for name, _ in THREE] if model.names else [])
    assert expected == seen(tapped[model.provider].posts)


@several_models
def test_three_files_and_a_mask(client: openai.OpenAI, tapped: dict[str, Tap], running: Running, model: Model) -> None:
    """The mask arrives as it is beside the images, or the request is refused by its name and nothing is sent."""
    arguments: dict[str, Any] = {"image": THREE, "mask": ("mask.png", mask_for()), "prompt": "Only the upper half"}
    if not model.mask:
        with posted_to(running) as posts, pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(model=model.name, **arguments)
        assert (caught.value.param, posts) == ("mask", {})
        return
    assert len(decoded(client.images.edit(model=model.name, **arguments))) == 1
    found = seen(tapped[model.provider].posts)
    assert ([sha(content) for _, content in THREE], sha(mask_for())) == (found.images, found.mask)


@every_model
def test_one_file_and_a_mask(client: openai.OpenAI, tapped: dict[str, Tap], model: Model) -> None:
    """A mask for one file: sent as it is, or refused by name."""
    arguments: dict[str, Any] = {"image": ONE, "mask": mask_for(), "prompt": "Only the upper half"}
    if model.mask:
        client.images.edit(model=model.name, **arguments)
        found = seen(tapped[model.provider].posts)
        assert ([sha(ONE)], sha(mask_for())) == (found.images, found.mask)
    else:
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(model=model.name, **arguments)
        assert caught.value.param == "mask"
        assert tapped[model.provider].begun == 0


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("model", [model for model in MODELS if model.most < 16], ids=str)
def test_more_files_than_the_model_takes(client: openai.OpenAI, model: Model) -> None:
    """One file too many is refused by the part's name; none is left out."""
    files = [(f"{place}.png", picture(place)) for place in range(model.most + 1)]
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(model=model.name, image=files, prompt="All of them")
    assert caught.value.param == "image[]"
    assert str(model.most) in caught.value.message


@pytest.mark.parametrize(
    ("model", "mask"),
    [(model, mask) for model in MODELS if model.most > 1 for mask in (False, True) if model.mask or not mask],
    ids=str,
)
def test_large_files(client: openai.OpenAI, tapped: dict[str, Tap], model: Model, mask: bool) -> None:
    """Files of megabytes, which may go upstream while they come in, arrive byte by byte as well."""
    files = [(f"{place}.png", padded(large_picture(3_000_000, place), 3_000_001 + place)) for place in range(3)]
    arguments: dict[str, Any] = {"mask": ("mask.png", mask_for())} if mask else {}
    images = client.images.edit(model=model.name, image=files, prompt="Put them together", **arguments)
    assert len(decoded(images)) == 1
    names = [name for name, _ in files] if model.names else []
    expected = Seen([sha(content) for _, content in files], sha(mask_for()) if mask else None, names)
    found = seen(tapped[model.provider].posts)
    assert expected == found._replace(names=found.names[:3])


deprecated_in_the_sdk = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@deprecated_in_the_sdk
@every_model
def test_variation(client: openai.OpenAI, tapped: dict[str, Tap], model: Model) -> None:
    """A variation is one where the provider has them, else an edit with a prompt of the gateway's own, disclosed."""
    raw = client.images.with_raw_response.create_variation(model=model.name, image=("a.png", ONE))
    assert len(decoded(raw.parse())) == 1
    posts = tapped[model.provider].posts
    assert [sha(ONE)] == seen(posts).images
    changes = raw.headers.get("imagegate-changes", "")
    if model.name.endswith("dall-e-2"):
        assert posts[-1].path == VARIATIONS
        assert "prompt" not in posts[-1].fields
        assert changes == ""
    else:
        assert "variation" in posts[-1].fields["prompt"]
        assert "prompt;added" in changes
        assert 'endpoint;from="variations"' in changes


@deprecated_in_the_sdk
def test_variations_of_dall_e_2_at_tokenlab(client: openai.OpenAI, tapped: dict[str, Tap]) -> None:
    """TokenLab makes variations of its own."""
    images = client.images.create_variation(model="tokenlab/dall-e-2", image=ONE, n=2, size="256x256")
    assert len(decoded(images)) == 2
    (post,) = tapped["tokenlab"].posts
    assert (VARIATIONS, [sha(ONE)]) == (post.path, seen([post]).images)


@every_model
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_both_forms(client: openai.OpenAI, model: Model, form: Any) -> None:
    """An edit comes back in the form that the client asked for."""
    (image,) = client.images.edit(model=model.name, image=ONE, prompt="Blue", response_format=form).data or []
    assert form == ("url" if image.url else "b64_json")


@every_model
def test_numbers_and_lists_of_the_sdk(client: openai.OpenAI, tapped: dict[str, Tap], model: Model) -> None:
    """``n`` is a number again where the provider wants JSON, and what no contract knows is named."""
    raw = client.images.with_raw_response.edit(
        model=model.name, image=ONE, prompt="Two of them", n=2, extra_body={"refs": ["a", "b"], "own": {"k": True}}
    )
    assert len(decoded(raw.parse())) == 2
    assert {"refs;dropped", "own;dropped"} <= set(raw.headers["imagegate-changes"].split(", "))
    fields = tapped[model.provider].posts[-1].fields
    assert fields.get("n", 1) in (2, "2", 1)
    assert {"refs", "refs[]", "own", "own[k]"}.isdisjoint(fields)


def test_dall_e_2_is_told_the_size_of_its_source(client: openai.OpenAI, tapped: dict[str, Tap]) -> None:
    """Without a size it would answer in another one than the image's."""
    raw = client.images.with_raw_response.edit(model="tokmodel/openai/dall-e-2", image=picture(1, 512), prompt="Blue")
    assert raw.headers["imagegate-changes"] == 'size;added;to="512x512"'
    assert tapped["tokmodel"].posts[-1].fields["size"] == "512x512"
    assert Image.open(io.BytesIO(decoded(raw.parse())[0])).size == (512, 512)


def _oblong() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (256, 512)).save(buffer, "PNG")
    return buffer.getvalue()


BAD_SOURCES = {
    "another size": (picture(1), {"size": "512x512"}, "size"),
    "not square": (_oblong(), {}, "image"),
    "JPEG": (picture(1, mode="RGB", form="JPEG"), {}, "image"),
    "no alpha": (picture(1, mode="RGB"), {}, "image"),
    "not one of its sizes": (picture(1, 300), {}, "image"),
    "4 MB": (large_picture(4_000_000), {}, "image"),
}


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize(("source", "fields", "param"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_dall_e_2_rules_are_checked_before_anything_is_sent(
    client: openai.OpenAI, source: bytes, fields: dict[str, Any], param: str
) -> None:
    """Square PNG with alpha under 4 MB, and a size that is its own: else a 400 that says what to change."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(model="tokmodel/openai/dall-e-2", image=source, prompt="Blue", **fields)
    assert param == caught.value.param


BAD_MASKS = {
    "another size": mask_for(128),
    "no alpha": picture(1, mode="RGB"),
    "JPEG": picture(1, mode="RGB", form="JPEG"),
    "4 MB": mask_for() + bytes(4_000_000),
}
FORM_MODELS = ["tokmodel/openai/gpt-image-2", "tokenbay/gpt-image-2", "tokenlab/gpt-image-2", "onetoken/gpt-image-2"]


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("order", ["image first", "mask first"])
@pytest.mark.parametrize("size", [None, 2_000_000], ids=["small", "large"])
@pytest.mark.parametrize("mask", BAD_MASKS.values(), ids=BAD_MASKS)
@pytest.mark.parametrize("model", [*FORM_MODELS, "toapis/gpt-image-1.5-official"])
def test_masks_are_checked_before_a_request_is_whole(
    http: httpx.Client, model: str, mask: bytes, size: int | None, order: str
) -> None:
    """A mask that does not fit is a 400 by its name, also where the form goes upstream while it comes in."""
    image = ("image", ("a.png", ONE if size is None else large_picture(size), "image/png"))
    files = [image, ("mask", ("mask.png", mask, "image/png"))]
    reply = http.post(
        EDITS, data={"model": model, "prompt": "Blue"}, files=files if order == "image first" else files[::-1]
    )
    assert error_of(reply)["param"] == "mask"


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_kinds_are_checked_before_a_request_is_whole(http: httpx.Client, place: int) -> None:
    """A format that the model does not take is refused, wherever it stands in a large form."""
    contents = [large_picture(1_500_000, seed) for seed in range(3)]
    contents[place] = picture(1, mode="P", form="GIF") + bytes(1_500_000)
    files = [("image[]", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    error = error_of(http.post(EDITS, data={"model": "tokenbay/gpt-image-2", "prompt": "Blue"}, files=files))
    assert (error["param"], error["code"]) == ("image[]", "invalid_image_file")


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize(
    ("content", "model", "word"),
    [
        (large_picture(4_500_000), "tokmodel/openai/dall-e-2", "4,000,000"),
        (large_picture(4_500_000), "tokenlab/dall-e-2", "4,000,000"),
        (picture(1, mode="RGB", form="JPEG") + bytes(1_200_000), "tokenlab/dall-e-2", "PNG"),
        (_oblong() + bytes(1_200_000), "tokenlab/dall-e-2", "square"),
    ],
    ids=["tokmodel, bytes", "tokenlab, bytes", "JPEG", "oblong"],
)
def test_large_variations_are_checked(http: httpx.Client, content: bytes, model: str, word: str) -> None:
    """The limits of variations hold also where the file goes upstream while it comes in."""
    reply = http.post(VARIATIONS, data={"model": model}, files={"image": ("a.png", content, "image/png")})
    error = error_of(reply)
    assert error["param"] == "image"
    assert word in error["message"]


# Type and name


@pytest.mark.parametrize("size", [0, 2_000_000])
def test_lying_types_are_corrected_and_disclosed(http: httpx.Client, tapped: dict[str, Tap], size: int) -> None:
    """A JPEG that says it is a PNG goes on as what it is, and the client is told."""
    content = picture(1, mode="RGB", form="JPEG") + bytes(size)
    files = {"image": ("a.png", content, "image/png")}
    reply = http.post(EDITS, data={"model": "tokenbay/gpt-image-2", "prompt": "Blue"}, files=files)
    assert reply.status_code == 200, reply.text
    assert '"image[0].type";from="image/png";to="image/jpeg"' in reply.headers["imagegate-changes"]
    assert [part.content_type for part in tapped["tokenbay"].posts[-1].files] == ["image/jpeg"]


@pytest.mark.parametrize("name", ['he said "hi".png', "猫 写真.png", "a;b=c.png", "x" * 200 + ".png", "%22.png"])
@pytest.mark.parametrize("size", [0, 2_000_000])
def test_file_names_arrive(http: httpx.Client, tapped: dict[str, Tap], name: str, size: int) -> None:
    """Odd names reach the provider as they came over the wire."""
    files = {"image": (name, picture(1) + bytes(size), "image/png")}
    reply = http.post(EDITS, data={"model": "tokenbay/gpt-image-2", "prompt": "Blue"}, files=files)
    assert reply.status_code == 200, reply.text
    assert [name.replace('"', "%22")] == [part.filename for part in tapped["tokenbay"].posts[-1].files]


@pytest.mark.parametrize("names", [["image"] * 3, ["image[]"] * 3, ["image[2]", "image[0]", "image[1]"]])
@pytest.mark.parametrize("size", [0, 1_000_000])
@pytest.mark.parametrize("model", [model for model in MODELS if model.most >= 3], ids=str)
def test_spellings_of_several_images(
    http: httpx.Client, tapped: dict[str, Tap], model: Model, names: list[str], size: int
) -> None:
    """However several images are called, the provider sees them in their order."""
    contents = [picture(seed) + bytes(size) for seed in range(3)]
    files = [(name, (f"{seed}.png", contents[seed], "image/png")) for seed, name in enumerate(names)]
    reply = http.post(EDITS, data={"model": model.name, "prompt": "Blue"}, files=files)
    assert reply.status_code == 200, reply.text
    order = sorted(range(3), key=lambda seed: names[seed] if "[2]" in names[0] else seed)
    assert [sha(contents[seed]) for seed in order] == seen(tapped[model.provider].posts).images


@pytest.mark.parametrize("size", [0, 2_000_000])
def test_fields_after_files(http: httpx.Client, tapped: dict[str, Tap], size: int) -> None:
    """A form whose fields come last is the same request, and reaches the provider whole exactly once."""
    files = [
        ("image", ("a.png", picture(1) + bytes(size), "image/png")),
        ("model", (None, "tokenbay/gpt-image-2")),
        ("prompt", (None, "Blue")),
        ("quality", (None, "hd")),
    ]
    reply = http.post(EDITS, files=files)
    assert reply.status_code == 200, reply.text
    (post,) = tapped["tokenbay"].posts
    assert post.fields == {"model": "gpt-image-2", "prompt": "Blue", "quality": "high"}


@pytest.mark.parametrize("path", [EDITS, f"{EDITS}/"])
@every_model
def test_trailing_slash(http: httpx.Client, model: Model, path: str) -> None:
    """With or without a slash at its end the path is the same."""
    files = {"image": ("a.png", ONE, "image/png")}
    reply = http.post(path, data={"model": model.name, "prompt": "Blue"}, files=files, follow_redirects=False)
    assert reply.status_code == 200, reply.text
    reply = http.post(f"{VARIATIONS}/", data={"model": model.name}, files=files, follow_redirects=False)
    assert reply.status_code == 200, reply.text


# Several requests


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("n", [2, 3])
def test_fan_out_uploads_each_file_once(http: httpx.Client, tapped: dict[str, Tap], files: int, n: int) -> None:
    """Several requests for one client share the links, and each change is told once."""
    parts = [("image[]", (f"{seed}.png", picture(seed), "image/png")) for seed in range(files)]
    model = "toapis/gemini-3-pro-image-preview"
    reply = http.post(EDITS, data={"model": model, "prompt": "Blue", "n": str(n)}, files=parts)
    assert reply.status_code == 200, reply.text
    assert n == len(reply.json()["data"])
    posts = tapped["toapis"].posts
    uploads = [post for post in posts if post.path == "/v1/uploads/images"]
    asked = [post.json for post in posts if post.path == "/v1/images/generations"]
    assert (files, n) == (len(uploads), len(asked))
    assert len({tuple(body["image_urls"]) for body in asked}) == 1
    assert [sha(picture(seed)) for seed in range(files)] == seen(posts).images
    changes = reply.headers["imagegate-changes"].split(", ")
    assert len(set(changes)) == len(changes)


def test_fan_out_with_data_urls_uploads_each_once(http: httpx.Client, tapped: dict[str, Tap]) -> None:
    """The same for JSON."""
    body = {
        "model": "toapis/gemini-3-pro-image-preview",
        "prompt": "Blue",
        "n": 2,
        "images": [{"image_url": data(ONE)}],
    }
    assert http.post(EDITS, json=body).status_code == 200
    assert [post.path for post in tapped["toapis"].posts].count("/v1/uploads/images") == 1


# JSON


def data(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    """A server of pictures: ``/SEED.png`` and ``/SEED.jpg``, and ``/mask.png``."""

    async def serve(request: Request) -> Response:
        name, _, extension = request.path_params["name"].partition(".")
        if name == "mask":
            return Response(mask_for(), media_type="image/png")
        if extension == "jpg":
            return Response(picture(int(name), mode="RGB", form="JPEG"), media_type="image/png")
        if extension == "html":
            return Response("<html>", media_type="image/png")
        return Response(picture(int(name)), media_type="application/octet-stream")

    with serving(Starlette(routes=[Route("/{name}", serve)])) as port:
        yield f"http://127.0.0.1:{port}"


def config_for(running: Running, folder: Path, **sections: Any) -> Config:
    upstreams = tuple(
        UpstreamConfig(name=name, base_url=f"http://127.0.0.1:{port}", api_key=f"sk-demo-{name}")
        for name, port in running.ports.items()
        if name != "comfyui"  # which has options, and tests of its own
    )
    delivery = DeliveryConfig(store=f"file://{folder}", fetch_allow=("127.0.0.1",))
    return Config(upstreams=upstreams, delivery=delivery, tasks=TasksConfig(poll_interval=Duration(0.05)), **sections)


@pytest.fixture(scope="module")
def fetching(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A gateway that may fetch from this machine."""
    config = config_for(running, tmp_path_factory.mktemp("fetching"))
    with (
        serving(ImageGateway(config=config, hooks=())) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        yield http


ONE_IMAGE: Mapping[str, Any] = {
    "images": lambda url: {"images": [{"image_url": url}]},
    "images of strings": lambda url: {"images": [url]},
    "images, chat": lambda url: {"images": [{"image_url": {"url": url}}]},
    "xAI": lambda url: {"image": {"url": url, "type": "image_url"}},
    "image": lambda url: {"image": url},
    "image_url": lambda url: {"image_url": url},
    "image_urls": lambda url: {"image_urls": [url]},
    "reference_image_urls": lambda url: {"reference_image_urls": [url]},
    "reference_images": lambda url: {"reference_images": [url]},
}


@every_model
@pytest.mark.parametrize("inline", [True, False], ids=["data", "link"])
@pytest.mark.parametrize("spelling", ONE_IMAGE)
def test_json_in_every_spelling(
    fetching: httpx.Client, tapped: dict[str, Tap], pictures: str, model: Model, inline: bool, spelling: str
) -> None:
    """An edit in JSON, by link or by data URL, reaches every provider as it wants it, with the same bytes."""
    url = data(picture(7)) if inline else f"{pictures}/7.png"
    reply = fetching.post(EDITS, json={"model": model.name, "prompt": "Blue", **ONE_IMAGE[spelling](url)})
    assert reply.status_code == 200, reply.text
    assert [sha(picture(7))] == seen(tapped[model.provider].posts).images


@several_models
@pytest.mark.parametrize("mask", ["mask", "mask_url", None])
def test_json_with_links_and_data_urls_mixed(
    fetching: httpx.Client, tapped: dict[str, Tap], pictures: str, model: Model, mask: str | None
) -> None:
    """Three images, one of them inline, keep their order; the mask goes with them or is refused by name."""
    body: dict[str, Any] = {
        "model": model.name,
        "prompt": "Blue",
        "images": [
            {"image_url": f"{pictures}/3.png"},
            {"image_url": data(picture(1))},
            {"image_url": f"{pictures}/2.jpg"},
        ],
    }
    if mask:
        body[mask] = {"image_url": f"{pictures}/mask.png"} if mask == "mask" else f"{pictures}/mask.png"
    reply = fetching.post(EDITS, json=body)
    if mask and not model.mask:
        assert error_of(reply)["param"] in ("mask", "mask_url")
        assert tapped[model.provider].begun == 0
        return
    assert reply.status_code == 200, reply.text
    found = seen(tapped[model.provider].posts)
    expected = [sha(picture(3)), sha(picture(1)), sha(picture(2, mode="RGB", form="JPEG"))]
    assert (expected, sha(mask_for()) if mask else None) == (found.images, found.mask)


@pytest.mark.parametrize("path", [EDITS, f"{EDITS}/"])
def test_json_with_file_ids(fetching: httpx.Client, running: Running, tapped: dict[str, Tap], path: str) -> None:
    """A file that TokenLab already has is named by its id; models whose provider has no files refuse it."""
    uploaded = httpx.post(
        f"http://127.0.0.1:{running.ports['tokenlab']}/v1/files",
        headers={"authorization": "Bearer sk-demo-tokenlab"},
        files={"file": ("a.png", ONE, "image/png")},
    ).json()["id"]
    body = {"prompt": "Blue", "images": [{"file_id": uploaded}]}
    reply = fetching.post(path, json={"model": "tokenlab/gpt-image-2", **body})
    assert reply.status_code == 200, reply.text
    assert [{"file_id": uploaded}] == tapped["tokenlab"].posts[-1].json["images"]
    with posted_to(running) as posts:
        for model in ("tokenbay/gpt-image-2", "tokenlab/grok-imagine-image", "toapis/gpt-image-1.5-official"):
            error = error_of(fetching.post(path, json={"model": model, **body}))
            assert error["param"].startswith("images")
    assert posts == {}


def test_json_variations(fetching: httpx.Client, tapped: dict[str, Tap], pictures: str) -> None:
    """Variations take JSON too."""
    for url in (data(ONE), f"{pictures}/1.png"):
        reply = fetching.post(VARIATIONS, json={"model": "tokmodel/openai/dall-e-2", "images": [{"image_url": url}]})
        assert reply.status_code == 200, reply.text
        assert [sha(ONE)] == seen(tapped["tokmodel"].posts).images


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("name", ["7.jpg", "7.html"], ids=["a JPEG where PNG is needed", "a page"])
def test_what_is_behind_a_link_is_checked(fetching: httpx.Client, pictures: str, name: str) -> None:
    """A picture that was fetched is held to the contract like one that was uploaded."""
    body = {"model": "tokmodel/openai/dall-e-2", "prompt": "Blue", "images": [{"image_url": f"{pictures}/{name}"}]}
    assert error_of(fetching.post(EDITS, json=body))["code"] == "invalid_image_file"


def test_the_size_of_a_source_behind_a_link_is_added(
    fetching: httpx.Client, tapped: dict[str, Tap], pictures: str
) -> None:
    """dall-e-2 answers in the size of its source, also where that came by link."""
    body = {"model": "tokmodel/openai/dall-e-2", "prompt": "Blue", "images": [{"image_url": f"{pictures}/7.png"}]}
    assert fetching.post(EDITS, json=body).status_code == 200
    assert tapped["tokmodel"].posts[-1].fields.get("size") == "256x256"


@pytest.mark.usefixtures("nothing_sent")
def test_a_mask_behind_a_link_is_checked(fetching: httpx.Client, pictures: str) -> None:
    """A mask without alpha is refused for files-only providers, however it came."""
    body = {
        "model": "tokenbay/gpt-image-2",
        "prompt": "Blue",
        "images": [{"image_url": f"{pictures}/7.png"}],
        "mask": {"image_url": f"{pictures}/8.jpg"},
    }
    assert error_of(fetching.post(EDITS, json=body))["param"] == "mask"


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("url", ["/missing", ":1/a.png"])
def test_links_that_cannot_be_had(fetching: httpx.Client, pictures: str, url: str) -> None:
    """A link that leads nowhere is the client's to mend, and nothing is sent."""
    base = pictures if url.startswith("/") else "http://127.0.0.1"
    body = {"model": "tokenbay/gpt-image-2", "prompt": "Blue", "images": [{"image_url": base + url}]}
    assert error_of(fetching.post(EDITS, json=body))["param"].startswith("images")


@pytest.mark.usefixtures("nothing_sent")
def test_links_into_the_private_network_are_refused(http: httpx.Client, pictures: str) -> None:
    """Without the operator's leave nothing is fetched from this machine."""
    body = {"model": "tokenbay/gpt-image-2", "prompt": "Blue", "images": [{"image_url": f"{pictures}/7.png"}]}
    assert error_of(http.post(EDITS, json=body))["param"].startswith("images")


# Models that no contract knows, and the policy that changes nothing


def _all_of_it(images: list[str], mask: str) -> Mapping[str, Any]:
    return {"images": [{"image_url": image} for image in images], "mask": {"image_url": mask}}


def test_unknown_models_keep_the_links_of_json(fetching: httpx.Client, tapped: dict[str, Tap], pictures: str) -> None:
    """A JSON edit for a model in no contract reaches the provider with its images and its mask."""
    body = {
        "model": "tokenlab/unheard-of",
        "prompt": "Blue",
        **_all_of_it([f"{pictures}/1.png"], f"{pictures}/mask.png"),
    }
    reply = fetching.post(EDITS, json=body)
    assert reply.headers["imagegate-contract"] == "none"
    (post,) = tapped["tokenlab"].posts
    assert {**body, "model": "unheard-of"} == post.json


def test_unknown_models_keep_links_beside_data_urls(
    fetching: httpx.Client, tapped: dict[str, Tap], pictures: str
) -> None:
    """Two images, one inline and one by link: both arrive, or the request is refused."""
    body = {"model": "tokenlab/unheard-of", "prompt": "Blue", "images": [data(ONE), f"{pictures}/2.png"]}
    reply = fetching.post(EDITS, json=body)
    posts = tapped["tokenlab"].posts
    if posts:
        assert [sha(ONE), sha(picture(2))] == seen(posts).images
    else:
        assert error_of(reply)["param"]


@pytest.mark.parametrize("part", ["mask", "markup"])
def test_unknown_models_keep_every_file(http: httpx.Client, tapped: dict[str, Tap], part: str) -> None:
    """A form for a model in no contract reaches the provider with all its files, or is refused by the part's name."""
    files = {"image": ("a.png", ONE, "image/png"), part: ("m.png", mask_for(), "image/png")}
    reply = http.post(EDITS, data={"model": "tokenbay/unheard-of", "prompt": "Blue"}, files=files)
    posts = tapped["tokenbay"].posts
    if posts:
        assert {"image": sha(ONE), part: sha(mask_for())} == {file.name: sha(file.content) for file in posts[-1].files}
    else:
        assert error_of(reply)["param"] == part


@pytest.mark.parametrize("provider", ["tokmodel", "tokenbay", "tokenlab", "toapis", "onetoken"])
@pytest.mark.parametrize("path", [EDITS, VARIATIONS])
def test_unknown_models_are_the_providers_affair(http: httpx.Client, provider: str, path: str) -> None:
    """What a provider does not have is its own error, not the gateway's failure."""
    files = {"image": ("a.png", ONE, "image/png")}
    reply = http.post(path, data={"model": f"{provider}/unheard-of", "prompt": "Blue"}, files=files)
    assert reply.json()["error"]["code"] != "internal_error", reply.text
    assert reply.status_code in (400, 404, 503)


def test_policy_pass_loses_nothing(running: Running, tapped: dict[str, Tap], pictures: str, tmp_path: Path) -> None:
    """Where nothing is to be changed, links and mask go upstream as they came."""
    config = config_for(running, tmp_path, policy=PolicyConfig(fit="pass"))
    body = {
        "model": "tokenlab/gpt-image-2",
        "prompt": "Blue",
        **_all_of_it([f"{pictures}/1.png"], f"{pictures}/mask.png"),
    }
    with serving(ImageGateway(config=config, hooks=())) as port:
        httpx.post(f"http://127.0.0.1:{port}{EDITS}", json=body, timeout=60)
    (post,) = tapped["tokenlab"].posts
    assert {**body, "model": "gpt-image-2"} == post.json


def test_links_in_a_form_stay_whole(http: httpx.Client, tapped: dict[str, Tap]) -> None:
    """A text part with a link beside a file becomes one more link, or is refused by name."""
    files = {"image": ("a.png", ONE, "image/png")}
    fields = {"model": "tokenlab/nano-banana-pro", "prompt": "Blue", "image_urls": "https://a.example/b.png"}
    reply = http.post(EDITS, data=fields, files=files)
    posts = [post for post in tapped["tokenlab"].posts if post.path.startswith("/v1/images")]
    if posts:
        (post,) = posts
        assert "https://a.example/b.png" in post.json["image_urls"]
        assert len(post.json["image_urls"]) == 2
    else:
        assert error_of(reply)["param"] == "image_urls"


# Explain


@pytest.mark.usefixtures("nothing_sent")
@every_model
@pytest.mark.parametrize("size", [0, 1_500_000])
def test_explain_shows_files(http: httpx.Client, model: Model, size: int) -> None:
    """Every file of a form is shown by name, type, size and SHA-256, and nothing is sent."""
    content = ONE + bytes(size)
    files = [("image", ("größe.png", content, "application/octet-stream"))]
    if model.mask:
        files.append(("mask", ("mask.png", mask_for(), "image/png")))
    reply = http.post(
        EDITS, data={"model": model.name, "prompt": "Blue"}, files=files, headers={"imagegate-explain": "?1"}
    )
    assert reply.status_code == 200, reply.text
    shown = reply.json()
    assert {"upstream", "method", "url", "headers", "body", "changes"} == set(shown)
    assert model.provider == shown["upstream"]
    assert "sk-demo" not in reply.text
    text = json.dumps(shown["body"], ensure_ascii=False)
    for name, kind, file in (("größe.png", "image/png", content), ("mask.png", "image/png", mask_for()))[: len(files)]:
        assert all(word in text for word in (name, kind, str(len(file)), sha(file)))
    if isinstance(shown["body"], list):
        expected = {"name": "image", "filename": "größe.png", "type": "image/png", "size": len(content)}
        assert {**expected, "sha256": sha(content)} in shown["body"]
        assert {"name": "prompt", "value": "Blue"} in shown["body"]


LINK = {"image_url": "https://a.example/1.png"}
NAMES_IN_JSON = [
    ("toapis/gpt-image-2", {"image_urls": [LINK["image_url"]], "mask_url": LINK["image_url"]}, {}),
    ("toapis/gpt-image-2", {"images": [LINK, LINK], "mask": LINK}, {"images": "image_urls", "mask": "mask_url"}),
    ("toapis/gpt-image-2-vip", LINK, {"image_url": "reference_images"}),
    ("tokenlab/nano-banana", {"image": {"url": LINK["image_url"]}}, {"image": "image_urls"}),
    ("tokenlab/gpt-image-2", {"images": [LINK], "mask": LINK}, {}),
    ("tokenlab/grok-imagine-image", {"image_urls": [LINK["image_url"]]}, {"image_urls": "images"}),
    ("tokenlab/grok-imagine-image", {"image": LINK}, {"image": "images"}),
]


@pytest.mark.parametrize(("model", "members", "renamed"), NAMES_IN_JSON)
def test_names_of_references_are_told_as_the_client_wrote_them(
    http: httpx.Client, model: str, members: dict[str, Any], renamed: dict[str, str]
) -> None:
    """A provider's own name is no change, another spelling is one."""
    body = {"model": model, "prompt": "Blue", **members}
    changes = http.post(EDITS, json=body, headers={"imagegate-explain": "?1"}).json()["changes"]
    told = {change["field"]: change["to"] for change in changes if change["kind"] == "renamed"}
    assert told == renamed


@pytest.mark.usefixtures("nothing_sent")
@every_model
def test_explain_shows_links(fetching: httpx.Client, pictures: str, model: Model) -> None:
    """The links of a JSON edit are shown too, whether they would be fetched or sent as they are."""
    link = f"{pictures}/7.png"
    body = {"model": model.name, "prompt": "Blue", "images": [{"image_url": link}]}
    reply = fetching.post(EDITS, json=body, headers={"imagegate-explain": "?1"})
    assert reply.status_code == 200, reply.text
    assert link in reply.text


# Refused


@pytest.mark.usefixtures("nothing_sent")
@every_model
@pytest.mark.parametrize(
    ("part", "content"),
    [("picture", ONE), ("images", ONE), ("file", ONE), ("image", b""), ("image", b"no picture"), ("mask", b"")],
    ids=["unknown", "images", "file", "empty", "no picture", "empty mask"],
)
def test_files_that_are_refused(http: httpx.Client, model: Model, part: str, content: bytes) -> None:
    """Unknown parts, empty files and what is no picture: a 400 that names the part, and nothing is sent."""
    files = [("image", ("a.png", ONE, "image/png")), (part, ("b.dat", content, "application/octet-stream"))]
    reply = http.post(
        EDITS, data={"model": model.name, "prompt": "Blue"}, files=files[1:] if part == "image" else files
    )
    assert part == error_of(reply)["param"]


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("size", [0, 1_000_000])
def test_a_bad_part_after_good_ones_undoes_the_whole(http: httpx.Client, size: int) -> None:
    """An empty file at the end of a form makes the form a 400, also where its beginning was on its way already."""
    files = [("image[]", (f"{seed}.png", picture(seed) + bytes(size), "image/png")) for seed in range(3)]
    for bad in (
        ("image[]", ("e.png", b"", "image/png")),
        ("own", ("e.png", ONE, "image/png")),
        ("mask", (None, "text")),
    ):
        reply = http.post(EDITS, data={"model": "tokenbay/gpt-image-2", "prompt": "Blue"}, files=[*files, bad])
        assert bad[0] == error_of(reply)["param"]


@pytest.mark.usefixtures("nothing_sent")
@every_model
def test_text_where_a_file_belongs(http: httpx.Client, model: Model) -> None:
    """OneToken's own example sends text; it is told so."""
    files = [("model", (None, model.name)), ("prompt", (None, "Blue")), ("image", (None, "@otter.png"))]
    error = error_of(http.post(EDITS, files=files))
    assert (error["param"], error["code"]) == ("image", "invalid_type")


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("size", [0, 100_000])
def test_seventeen_images(client: openai.OpenAI, size: int) -> None:
    """More images than OpenAI takes are a 400 that names the part; sixteen are none."""
    files = [(f"{seed}.png", picture(seed) + bytes(size)) for seed in range(17)]
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(model="tokenbay/gpt-image-2", image=files, prompt="All of them")
    assert caught.value.param == "image[]"
    assert "16" in caught.value.message


@pytest.mark.parametrize("size", [0, 100_000])
def test_sixteen_images(client: openai.OpenAI, tapped: dict[str, Tap], size: int) -> None:
    """Sixteen images arrive in order."""
    files = [(f"{seed}.png", picture(seed) + bytes(size)) for seed in range(16)]
    client.images.edit(model="tokenbay/gpt-image-2", image=files, prompt="All of them")
    assert Seen([sha(content) for _, content in files], None, [name for name, _ in files]) == seen(
        tapped["tokenbay"].posts
    )


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("model", ["tokenbay/gpt-image-2", "tokenlab/nano-banana-pro", "tokmodel/openai/dall-e-2"])
@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_file_of_51_megabytes(client: openai.OpenAI, model: str, part: str) -> None:
    """A file beyond the limit is a 413 that names the part, which the SDK gets to see."""
    files: dict[str, Any] = {"image": ONE, part: padded(large_picture(51_000_000), 51_000_000)}
    with pytest.raises(openai.APIStatusError) as caught:
        client.images.edit(model=model, prompt="Blue", **files)
    assert (413, part) == (caught.value.status_code, caught.value.param)


@pytest.mark.usefixtures("nothing_sent")
def test_a_form_that_ends_early(http: httpx.Client) -> None:
    """A whole body that holds half a form is a 400."""
    request = http.build_request(
        "POST",
        EDITS,
        data={"model": "tokenbay/gpt-image-2", "prompt": "Blue"},
        files={"image": ("a.png", large_picture(2_000_000), "image/png")},
    )
    body = request.read()
    for length in (len(body) // 2, len(body) - 10, 300, 0):
        reply = http.post(EDITS, content=body[:length], headers={"content-type": request.headers["content-type"]})
        assert error_of(reply)["code"] == "invalid_form"


REFUSALS: Mapping[str, tuple[dict[str, Any], int]] = {
    "the form is too large": ({"limits": LimitsConfig(form=1_000_000)}, 413),
    "the key is wrong": ({"access": AccessConfig(keys=("sk-right-key",))}, 401),
    "the spool is full": ({"limits": LimitsConfig(spool=1_000_000)}, 503),
    "no place": ({"limits": LimitsConfig(spool=1)}, 503),
    "a file is too large": ({"limits": LimitsConfig(file=1_000_000)}, 413),
    "too many images": ({"limits": LimitsConfig(files=1)}, 400),
}


@pytest.mark.usefixtures("nothing_sent")
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sections", "status"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_in_the_middle_of_an_upload_are_heard(
    running: Running, tmp_path: Path, sections: dict[str, Any], status: int, asynchronous: bool
) -> None:
    """Who is refused while still sending gets the answer, not a broken connection, also from the asynchronous SDK."""
    files = [(f"{place}.png", large_picture(8_000_000, place)) for place in range(4)]
    request: dict[str, Any] = {"model": "tokenbay/gpt-image-2", "image": files, "prompt": "Blue"}

    async def ask(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-wrong-key", max_retries=0) as client:
            await client.images.edit(**request)

    def ask_now(url: str) -> None:
        with openai.OpenAI(base_url=url, api_key="sk-wrong-key", max_retries=0) as client:
            client.images.edit(**request)

    with serving(ImageGateway(config=config_for(running, tmp_path, **sections), hooks=())) as port:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(3):
            with pytest.raises(openai.APIStatusError) as caught:
                asyncio.run(ask(url)) if asynchronous else ask_now(url)
            assert status == caught.value.status_code


# Clients that leave


def send_half(url: str, model: str, *, whole: int, sent: int, chunked: bool) -> socket.socket:
    """Sends the beginning of an edit over a connection that is given back still open."""
    address = urlsplit(url)
    boundary = "half-boundary"
    body = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("model", model), ("prompt", "Blue"))
    ).encode()
    body += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode() + large_picture(sent)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body) + whole}"
    head = f"POST {EDITS} HTTP/1.1\r\nHost: {address.netloc}\r\n{length}\r\n"
    head += f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    connection = socket.create_connection((address.hostname or "", address.port or 80), timeout=30)
    connection.sendall(head.encode() + (f"{len(body):x}\r\n".encode() + body + b"\r\n" if chunked else body))
    return connection


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("model", ["tokenbay/gpt-image-2", "tokenlab/nano-banana-pro", "toapis/gpt-image-1.5-official"])
def test_an_upload_that_is_cut_off(
    running: Running, tapped: dict[str, Tap], tmp_path: Path, model: str, chunked: bool
) -> None:
    """A client that leaves half-way: no provider gets a whole request, and no temporary file stays open."""
    config = tmp_path / "imagegate.toml"
    write_config(config, running.ports, store=tmp_path / "images")
    with posted_to(running) as posts, gateway_process(config) as gateway:
        connections = [
            send_half(gateway.url, model, whole=20_000_000, sent=6_000_000, chunked=chunked) for _ in range(4)
        ]
        until(lambda: len(gateway.spooled()) == len(connections), what="the spool files")
        for connection in connections:
            connection.close()
        until(lambda: not gateway.spooled(), what="closing the spool files")
        assert gateway.left_behind() == []
        files = {"image": ("a.png", ONE, "image/png")}
        reply = httpx.post(gateway.url + EDITS, data={"model": model, "prompt": "Blue"}, files=files, timeout=60)
        assert reply.status_code == 200, reply.text
        until(lambda: not gateway.spooled(), what="closing the spool files")
    provider = model.partition("/")[0]
    whole = [post for post in tapped[provider].posts if "model" in post.fields]
    assert len(whole) == 1
    assert set(posts) == {provider}
