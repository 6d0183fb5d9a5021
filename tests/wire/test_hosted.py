"""Hosted providers behind the gateway, each as strict as the real one, and the official SDK in front."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette
from tests.simulators import (
    bedrock,
    bfl,
    deepinfra,
    fal,
    fireworks,
    huggingface,
    ideogram,
    recraft,
    replicate,
    stability,
    strict,
    together,
    xai,
)
from tests.simulators.base import KEY, received
from tests.waiting import until
from tests.wire.edit_support import Post, mask_for, picture
from tests.wire.self_hosted_support import Setting, contents, problem, setting, sizes, streamed

from imagegate.demo.providers.common import FORBIDDEN_WORD
from imagegate.demo.servers import serving


class Provider(NamedTuple):
    """One provider, and what its model can do."""

    create: Callable[[], Starlette]
    model: str
    adapter: str
    sizes: Mapping[str, tuple[int, int]]
    """Asked -> pixels of the picture."""
    edits_in: tuple[int, int] | None
    """Size of an edit of a picture of 64x64 pixels; None: it has no edits."""
    references: int = 3
    mask_model: str = ""
    """The model that takes a mask."""
    most: int = 1
    """Pictures in one request."""
    has_tasks: bool = True
    more: str = ""
    """Of the upstream's configuration."""
    edit_model: str = ""
    """The model that edits; empty: the same."""
    has_moderation: bool = True


PROVIDERS: Mapping[str, Provider] = {
    "xai": Provider(
        *(xai.create_app, "grok-imagine-image-2.0", "xai"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768), "auto": (1024, 1024)},
        edits_in=(1024, 1024),
        most=10,
        has_tasks=False,
    ),
    "bfl": Provider(
        *(bfl.create_app, "flux-2-pro", "bfl"),
        sizes={"1024x1024": (1024, 1024), "1920x1080": (1920, 1088), "auto": (1024, 1024)},
        edits_in=(64, 64),
        mask_model="flux-pro-1.0-fill",
    ),
    "replicate": Provider(
        *(replicate.create_app, "black-forest-labs/flux-2-pro", "replicate"),
        sizes={"1024x1024": (1024, 1024), "1920x1080": (1920, 1088)},
        edits_in=(64, 64),
        mask_model="black-forest-labs/flux-fill-pro",
    ),
    "replicate-dev": Provider(
        *(replicate.create_app, "black-forest-labs/flux-dev", "replicate"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768)},
        edits_in=(64, 64),
        references=1,
        most=4,
        more="options = { wait = 0 }",
    ),
    "replicate-gemini": Provider(
        *(replicate.create_app, "google/nano-banana-2", "replicate"),
        sizes={"2048x2048": (2048, 2048)},
        edits_in=(64, 64),
    ),
    "fal": Provider(
        *(fal.create_app, "fal-ai/flux-2", "fal"),
        sizes={"1024x1024": (1024, 1024), "1920x1080": (1920, 1088)},
        edits_in=(64, 64),
        mask_model="fal-ai/flux-pro/v1/fill",
        most=4,
    ),
    "fal-pro": Provider(
        *(fal.create_app, "fal-ai/flux-2-pro", "fal"),
        sizes={"1024x1024": (1024, 1024), "2048x1024": (2048, 1024)},
        edits_in=(64, 64),
    ),
    "fal-gemini": Provider(
        *(fal.create_app, "fal-ai/nano-banana-pro", "fal"),
        sizes={"2048x2048": (2048, 2048), "1792x1024": (1360, 768)},
        edits_in=(64, 64),
        most=4,
    ),
    "bfl-kontext": Provider(
        *(bfl.create_app, "flux-kontext-pro", "bfl"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768)},
        edits_in=(64, 64),
    ),
    "bfl-flux-3": Provider(
        *(bfl.create_app, "flux-3-image", "bfl"),
        sizes={"2048x2048": (2048, 2048), "1536x1024": (1248, 832)},
        edits_in=(64, 64),
    ),
    "together": Provider(
        *(together.create_app, "black-forest-labs/FLUX.2-pro", "together"),
        sizes={"1024x1024": (1024, 1024), "1920x1080": (1920, 1088), "auto": (1024, 1024)},
        edits_in=(1024, 1024),
        most=4,
        has_tasks=False,
    ),
    "together-kontext": Provider(
        *(together.create_app, "black-forest-labs/FLUX.1-kontext-pro", "together"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768)},
        edits_in=(1024, 1024),
        references=1,
        most=4,
        has_tasks=False,
    ),
    "deepinfra": Provider(
        *(deepinfra.create_app, "black-forest-labs/FLUX-2-dev", "deepinfra"),
        sizes={"1024x1024": (1024, 1024), "1000x500": (992, 496), "auto": (1024, 1024)},
        edits_in=(64, 64),
        mask_model="black-forest-labs/FLUX-2-dev",
        has_tasks=False,
    ),
    "huggingface": Provider(
        *(huggingface.create_app, "black-forest-labs/FLUX.1-dev", "huggingface"),
        sizes={"1024x1024": (1024, 1024), "1000x500": (992, 496), "auto": (1024, 1024)},
        edits_in=(64, 64),
        edit_model="timbrooks/instruct-pix2pix",
        references=1,
        has_tasks=False,
        has_moderation=False,
    ),
    "huggingface-together": Provider(
        *(huggingface.create_app, "together/black-forest-labs/FLUX.1-dev", "huggingface"),
        sizes={"1024x1024": (1024, 1024), "1000x500": (992, 496)},
        edits_in=None,
        most=4,
        has_tasks=False,
        has_moderation=False,
    ),
    "fireworks": Provider(
        *(fireworks.create_app, "flux-1-schnell-fp8", "fireworks"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768)},
        edits_in=None,
        has_tasks=False,
    ),
    "fireworks-sdxl": Provider(
        *(fireworks.create_app, "SSD-1B", "fireworks"),
        sizes={"1024x1024": (1024, 1024), "1000x1500": (832, 1216), "auto": (1024, 1024)},
        edits_in=None,
        has_tasks=False,
    ),
    "fireworks-kontext": Provider(
        *(fireworks.create_app, "flux-kontext-pro", "fireworks"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768)},
        edits_in=(64, 64),
        references=1,
    ),
    "stability": Provider(
        *(stability.create_app, "sd3.5-large", "stability"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768), "auto": (1024, 1024)},
        edits_in=(64, 64),
        references=1,
        mask_model="inpaint",
        has_tasks=False,
    ),
    "bedrock": Provider(
        *(bedrock.create_app, "stability.stable-image-core-v1:1", "bedrock"),
        sizes={"1024x1024": (1024, 1024), "1792x1024": (1360, 768), "auto": (1024, 1024)},
        edits_in=(64, 64),
        edit_model="stability.sd3-5-large-v1:0",
        references=1,
        has_tasks=False,
    ),
    "ideogram": Provider(
        *(ideogram.create_app, "ideogram-v3", "ideogram"),
        sizes={"1024x1024": (1024, 1024), "1312x736": (1312, 736), "16:9": (1360, 768), "auto": (1024, 1024)},
        edits_in=(1024, 1024),
        references=1,
        mask_model="ideogram-v3",
        most=8,
        has_tasks=False,
    ),
    "ideogram-v4": Provider(
        *(ideogram.create_app, "ideogram-v4", "ideogram"),
        sizes={"2048x2048": (2048, 2048), "1920x1080": (2560, 1440)},
        edits_in=(1024, 1024),
        references=1,
        has_tasks=False,
    ),
    "recraft": Provider(
        *(recraft.create_app, "recraftv4_1", "recraft"),
        sizes={"1024x1024": (1024, 1024), "1920x1080": (1344, 768), "3:2": (1248, 832)},
        edits_in=(64, 64),
        references=1,
        mask_model="recraftv3",
        most=6,
        has_tasks=False,
    ),
}
Start = Callable[[str], Setting]
every_provider = pytest.mark.parametrize("name", PROVIDERS)
every_task = pytest.mark.parametrize("name", [name for name, each in PROVIDERS.items() if each.has_tasks])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a provider and a gateway once, for all tests."""
    with ExitStack() as stack:
        known: dict[str, Setting] = {}

        def started(name: str) -> Setting:
            if name not in known:
                each = PROVIDERS[name]
                folder: Path = tmp_path_factory.mktemp(name)
                more = f'api_key = "{KEY}"\n{each.more}'
                known[name] = stack.enter_context(
                    setting(folder, each.create(), each.adapter, model=each.model, more=more)
                )
            known[name].forget()
            return known[name]

        yield started


def submits(own: Setting) -> list[Post]:
    """The requests that are paid for: a question may be a POST too."""
    return [post for post in own.tap.posts if not post.path.endswith("/get_result")]


def files_in(post: Post) -> str:
    """The files of a form, or a body with files in it, as base64."""
    return " ".join(base64.b64encode(part.content).decode() for part in post.files) or str(post.json)


def asked(own: Setting, model: str) -> str:
    return f"{own.model.partition('/')[0]}/{model}" if model else own.model


@every_provider
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_generations(start: Start, name: str, form: Any) -> None:
    """The pixels are those that were asked for, in both forms."""
    own, each = start(name), PROVIDERS[name]
    for size, pixels in each.sizes.items():
        images = own.generate(size=size, response_format=form)
        assert sizes(images) == [pixels]
        assert (images.data[0].url is None) == (form == "b64_json")


@every_provider
def test_several_pictures(start: Start, name: str) -> None:
    """In one request where the provider takes it, else in several; all of them, and all different."""
    own, each = start(name), PROVIDERS[name]
    found = contents(own.generate(n=3))
    assert len(set(found)) == 3
    assert len(submits(own)) == (1 if each.most >= 3 else 3)


@every_provider
def test_a_stream(start: Start, name: str) -> None:
    """The gateway makes it."""
    own = start(name)
    assert len(streamed(own.generate(stream=True))) == 1


@every_provider
def test_edits(start: Start, name: str) -> None:
    """Files arrive, in their order."""
    own, each = start(name), PROVIDERS[name]
    if each.edits_in is None:
        assert problem(lambda: own.edit(picture(1, 64)))["status"] == 400
        return
    own = replace(own, model=asked(own, each.edit_model))
    assert sizes(own.edit(picture(1, 64))) == [each.edits_in]
    own.forget()
    several = [picture(seed, 64) for seed in range(each.references)]
    assert len(contents(own.edit(*several))) == 1
    written = files_in(submits(own)[-1])
    places = [written.index(base64.b64encode(content).decode()) for content in several]
    assert places == sorted(places)
    too_many = [picture(seed, 64) for seed in range(17)]
    assert problem(lambda: own.edit(*too_many))["status"] == 400


EDITORS = {name: each for name, each in PROVIDERS.items() if each.edits_in is not None}


@pytest.mark.parametrize("name", [name for name, each in EDITORS.items() if each.mask_model != each.model])
def test_masks_are_refused_by_name(start: Start, name: str) -> None:
    """Where the model takes none."""
    own = start(name)
    editor = replace(own, model=asked(own, EDITORS[name].edit_model))
    assert problem(lambda: editor.edit(picture(1, 64), mask=mask_for(64)))["param"] == "mask"
    assert submits(own) == []


@pytest.mark.parametrize("name", [name for name, each in EDITORS.items() if each.mask_model])
def test_masks(start: Start, name: str) -> None:
    """Taken where there is a model for it, in the polarity that it reads."""
    own = start(name)
    images = own.client.images.edit(
        model=asked(own, EDITORS[name].mask_model), prompt="a hat", image=picture(1, 64), mask=mask_for(64)
    )
    assert len(contents(images)) == 1
    assert [own.server.state.repainted[0].at(0.5, y) for y in (0, 1)] == [True, False]


@pytest.mark.parametrize("name", [name for name, each in PROVIDERS.items() if each.has_moderation])
@pytest.mark.parametrize("word", [FORBIDDEN_WORD, strict.GRUESOME])
def test_moderation(start: Start, name: str, word: str) -> None:
    """A prompt that is refused and a picture that is withheld are the same error, and nothing is sent again."""
    own = start(name)
    found = problem(lambda: own.generate(prompt=f"a {word} hat"))
    assert found["status"] in (400, 403, 422)
    assert found["code"] in ("moderation_blocked", "content_policy_violation")
    assert len(submits(own)) == 1


@every_task
def test_a_task_that_fails(start: Start, name: str) -> None:
    """The provider's own word, and no second submit."""
    own = start(name)
    found = problem(lambda: own.generate(prompt=f"a {strict.HOPELESS} hat"))
    assert (found["status"], found["type"]) == (502, "upstream_error")
    assert len(submits(own)) == 1


@every_task
def test_a_state_that_is_not_known(start: Start, name: str) -> None:
    """It is waited for."""
    own = start(name)
    assert len(contents(own.generate(prompt=f"a {strict.STRANGE} hat"))) == 1
    assert len(submits(own)) == 1


@every_task
def test_questions_that_fail_are_asked_again(start: Start, name: str) -> None:
    """A page, and an empty reply, say nothing of the task; nothing is submitted again."""
    own = start(name)
    assert len(contents(own.generate(prompt=f"a {strict.SHAKY} hat"))) == 1
    assert len(submits(own)) == 1


@every_provider
def test_a_limit(start: Start, name: str) -> None:
    """A 429 is a 429, and the same request may be sent again."""
    own = start(name)
    assert problem(lambda: own.generate(prompt=f"a {strict.BUSY} hat"))["status"] == 429


@every_task
def test_a_link_that_has_expired(start: Start, name: str) -> None:
    """The picture was made, and cannot be had: an error that no SDK repeats, and no second submit."""
    own = start(name)
    found = problem(lambda: own.generate(prompt=f"an {strict.EXPIRED} hat", response_format="b64_json"))
    assert (found["status"], found["code"]) == (502, "image_fetch_failed")
    assert len(submits(own)) == 1


@every_provider
def test_a_wrong_key(name: str, tmp_path: Path) -> None:
    """The provider's own answer, without the key."""
    each = PROVIDERS[name]
    more = f'api_key = "sk-other-key-of-ours"\n{each.more}'
    with setting(tmp_path, each.create(), each.adapter, model=each.model, more=more) as own:
        found = problem(own.generate)
        assert found["status"] in (401, 403)
        assert "sk-other-key-of-ours" not in str(found)


@every_provider
def test_what_would_be_sent_is_explained(start: Start, name: str) -> None:
    """Without sending it."""
    own = start(name)
    shown = own.explained(size="1024x1024", n=1)
    assert "POST" in str(shown)
    assert KEY not in str(shown)
    assert submits(own) == []


def test_a_task_that_bfl_does_not_find_may_have_been_made(start: Start) -> None:
    """It is uncertain, and is not sent again."""
    own = start("bfl")
    found = problem(lambda: own.generate(prompt=f"a {bfl.LOST} hat"))
    assert (found["status"], found["code"]) == (502, "task_lost")
    assert len(submits(own)) == 1


def test_no_key_goes_to_a_polling_address_elsewhere(tmp_path: Path) -> None:
    """That address is never asked."""
    elsewhere = bfl.create_app()
    with serving(elsewhere) as port:
        app = bfl.create_app(polling_origin=f"http://127.0.0.1:{port}")
        with setting(tmp_path, app, "bfl", model="flux-2-pro", more=f'api_key = "{KEY}"') as own:
            found = problem(own.generate)
            assert (found["status"], found["code"]) == (502, "task_lost")
            assert len(submits(own)) == 1
    assert elsewhere.state.requests_seen == 0


@pytest.mark.parametrize(("word", "status"), [(bedrock.SLOW, 504), (bedrock.BROKEN, 502)])
def test_a_model_of_bedrock_that_gave_up(start: Start, word: str, status: int) -> None:
    """It may have been made, so nothing is sent again."""
    own = start("bedrock")
    assert problem(lambda: own.generate(prompt=f"a {word} hat"))["status"] == status
    assert len(own.tap.posts) == 1


def test_a_result_of_stability_is_asked_for(start: Start) -> None:
    """A service that takes longer answers with an id; a blurred result is a moderation error."""
    own = replace(start("stability"), model="own/upscale-creative")
    assert sizes(own.edit(picture(1, 64), response_format="b64_json")) == [(64, 64)]
    assert problem(lambda: own.edit(picture(1, 64), prompt=f"a {strict.GRUESOME} hat"))["code"] == "moderation_blocked"
    failed = problem(lambda: own.edit(picture(1, 64), prompt=f"a {strict.HOPELESS} hat"))
    assert "The generation has failed" in failed["message"]
    assert len(own.tap.posts) == 3


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("core", {}),
        ("ultra", {"strength": 0.4}),
        ("erase", {}),
        ("search-and-replace", {"search_prompt": "a cat"}),
        ("outpaint", {"left": 64}),
    ],
)
def test_services_of_stability(start: Start, model: str, fields: dict[str, Any]) -> None:
    """Each has its own path and members, and what it does not take never goes out."""
    own = replace(start("stability"), model=f"own/{model}")
    if model == "core":
        assert sizes(own.generate(size="16:9")) == [(1360, 768)]
    else:
        assert len(contents(own.edit(picture(1, 64), extra_body=fields, quality="high"))) == 1
    (post,) = own.tap.posts
    assert post.path.endswith(f"/{model}")
    assert post.fields.keys() >= fields.keys()


def test_backgrounds_at_recraft(start: Start) -> None:
    """Replacing needs no mask, generating does."""
    own = replace(start("recraft"), model="own/replace-background")
    assert sizes(own.edit(picture(1, 64))) == [(64, 64)]
    own = replace(own, model="own/generate-background")
    assert sizes(own.edit(picture(1, 64), mask=mask_for(64))) == [(64, 64)]
    assert problem(lambda: own.edit(picture(1, 64)))["param"] == "mask"
    assert [post.path.rpartition("/")[2] for post in own.tap.posts] == ["replaceBackground", "generateBackground"]


def test_nscale_by_the_router(start: Start) -> None:
    """A partner's own shapes, with the model as a member."""
    own = replace(start("huggingface"), model="own/nscale/black-forest-labs/FLUX.1-schnell")
    assert sizes(own.generate(size="512x512", response_format="url")) == [(512, 512)]
    assert own.sent["model"] == "black-forest-labs/FLUX.1-schnell"


def test_a_model_that_is_being_loaded(start: Start) -> None:
    """A 503 with the provider's own words says that nothing was made."""
    found = problem(lambda: start("huggingface").generate(prompt=f"a {huggingface.LOADING} hat"))
    assert (found["status"], found["message"]) == (503, "Model is currently loading")


def test_sizes_beside_a_mask_are_left_out_and_named(start: Start) -> None:
    """Inpainting at Ideogram has the size of the image."""
    own = start("ideogram")
    files = {"image": ("a.png", picture(1, 64), "image/png"), "mask": ("m.png", mask_for(64), "image/png")}
    body = {"model": own.model, "prompt": "a hat", "size": "1024x1024"}
    reply = own.raw.post("/images/edits", data=body, files=files)
    assert reply.status_code == 200, reply.text
    changes = reply.headers["imagegate-changes"]
    assert "size;dropped" in changes
    assert 'mask;from="transparent";to="black"' in changes


@every_task
def test_a_task_of_the_clients_own(start: Start, name: str) -> None:
    """It is asked for by the id that the gateway gave, until the picture is there; the request is sent once."""
    own = start(name)
    body = {"model": own.model, "prompt": "a hat", "async": True}
    created = own.raw.post("/images/generations", json=body)
    assert created.status_code == 202, created.text
    found: list[dict[str, Any]] = []

    def is_over() -> bool:
        found.append(own.raw.get(f"/tasks/{created.json()['task_id']}").json())
        return bool(found[-1]["status"] in ("completed", "failed"))

    until(is_over)
    assert found[-1]["status"] == "completed"
    assert own.raw.get(found[-1]["data"][0]["url"]).content
    assert len(submits(own)) == 1


@pytest.mark.parametrize(
    ("word", "status", "code"), [("unseen", 422, "invalid_request"), ("fallen", 502, None), ("endless", 504, None)]
)
def test_results_of_fal_that_are_errors(start: Start, word: str, status: int, code: str | None) -> None:
    """They end the task at once, with the model's own sentence, whether it is in a list or not."""
    own = start("fal")
    before = len(received(own.server))
    found = problem(lambda: own.generate(prompt=f"an {word} hat"))
    detail = fal.ENDS[word][1]
    assert (found["status"], found["message"]) == (status, detail if isinstance(detail, str) else detail[0]["msg"])
    assert code in (None, found["code"])
    assert len(submits(own)) == 1
    questions = [each.path for each in received(own.server)[before:] if each.method == "GET"]
    assert len([path for path in questions if not path.endswith("/status")]) == 1


def test_files_that_xai_already_has(start: Start) -> None:
    """Their ids are passed on, beside links too."""
    own = start("xai")
    link = "https://93.184.215.14/hat.png"
    for images in ([{"file_id": "file-1"}], [{"image_url": link}, {"file_id": "file-1"}]):
        answer = own.raw.post("/images/edits", json={"model": own.model, "prompt": "a hat", "images": images})
        assert answer.status_code == 200, answer.text
    one, two = (post.json for post in own.tap.posts)
    assert one["image"] == {"file_id": "file-1"}
    assert two["images"] == [{"url": link, "type": "image_url"}, {"file_id": "file-1"}]


@pytest.mark.usefixtures("providers_ids")
def test_fal_is_asked_to_cancel(start: Start) -> None:
    """At the address that belongs to the status, with the key; fal does not say whether it did, so the task goes on."""
    own = start("fal")
    created = own.raw.post("/images/generations", json={"model": own.model, "prompt": "a hat", "async": True})
    cancelled = own.raw.delete(f"/tasks/{created.json()['task_id']}")
    assert cancelled.status_code == 409, cancelled.text
    (put,) = [each for each in received(own.server) if each.method == "PUT"]
    assert put.path.endswith("/cancel")
    assert len(own.tap.posts) == 1


def test_replicate_may_answer_with_the_picture(start: Start) -> None:
    """A reply that waited is asked for no more."""
    own = start("replicate")
    before = len([each for each in received(own.server) if "/v1/predictions/" in each.path])
    assert len(contents(own.generate(prompt=f"a {replicate.QUICK} hat"))) == 1
    assert len([each for each in received(own.server) if "/v1/predictions/" in each.path]) == before
    (post,) = own.tap.posts
    assert post.headers["prefer"] == "wait=5"


def test_replicate_is_asked_to_cancel(start: Start) -> None:
    """And says that it did."""
    own = start("replicate")
    created = own.raw.post("/images/generations", json={"model": own.model, "prompt": "a hat", "async": True})
    task = created.json()["task_id"]
    until(lambda: own.tap.posts)
    cancelled = own.raw.delete(f"/tasks/{task}")
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json()["error"]["code"] == "task_cancelled"
    assert [post.path.rpartition("/")[2] for post in own.tap.posts] == ["predictions", "cancel"]


def test_a_version_at_replicate(start: Start) -> None:
    """It is named in the body."""
    own = replace(start("replicate"), model=f"own/{replicate.VERSIONED}:{replicate.VERSION}")
    assert len(contents(own.generate(extra_body={"mood": "blue"}))) == 1
    assert own.sent == {"version": replicate.VERSION, "input": {"prompt": "a cat", "mood": "blue"}}


@pytest.mark.parametrize(
    ("name", "model", "posts"), [("fireworks-kontext", "", 1), ("stability", "upscale-creative", 1)]
)
def test_a_task_of_a_client(start: Start, name: str, model: str, posts: int) -> None:
    """A client that wants a task gets the provider's own, and its picture as soon as it is there."""
    own = start(name)
    data = {"model": asked(own, model), "prompt": "a hat", "async": "true"}
    files = {"image": ("a.png", picture(1, 64), "image/png")}
    created = own.raw.post("/images/edits", data=data, files=files)
    assert created.status_code == 202, created.text
    document: dict[str, Any] = {}
    for _ in range(200):
        document = own.raw.get(created.headers["location"].removeprefix("/v1")).json()
        if document["status"] in ("completed", "failed"):
            break
    assert document["status"] == "completed", document
    assert own.raw.get(document["data"][0]["url"]).status_code == 200
    assert len(submits(own)) == posts
