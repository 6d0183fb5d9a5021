"""Hosted providers behind the gateway, each as strict as the real one, and the official SDK in front."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette
from tests.simulators import bfl, strict, xai
from tests.simulators.base import KEY
from tests.wire.edit_support import mask_for, picture
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
    assert len(own.tap.posts) == (1 if each.most >= 3 else 3)


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
    assert sizes(own.edit(picture(1, 64))) == [each.edits_in]
    own.forget()
    several = [picture(seed, 64) for seed in range(each.references)]
    assert len(contents(own.edit(*several))) == 1
    written = str(own.sent)
    places = [written.index(base64.b64encode(content).decode()) for content in several]
    assert places == sorted(places)
    too_many = [picture(seed, 64) for seed in range(17)]
    assert problem(lambda: own.edit(*too_many))["status"] == 400


@every_provider
def test_masks(start: Start, name: str) -> None:
    """Taken where there is a model for it, in the polarity that it reads; else refused by name."""
    own, each = start(name), PROVIDERS[name]
    if each.edits_in is not None:
        if each.mask_model != each.model:
            assert problem(lambda: own.edit(picture(1, 64), mask=mask_for(64)))["param"] == "mask"
            assert own.tap.posts == []
        if each.mask_model:
            images = own.client.images.edit(
                model=asked(own, each.mask_model), prompt="a hat", image=picture(1, 64), mask=mask_for(64)
            )
            assert len(contents(images)) == 1
            assert [own.server.state.repainted[0].at(0.5, y) for y in (0, 1)] == [True, False]


@every_provider
@pytest.mark.parametrize("word", [FORBIDDEN_WORD, strict.GRUESOME])
def test_moderation(start: Start, name: str, word: str) -> None:
    """A prompt that is refused and a picture that is withheld are the same error, and nothing is sent again."""
    own = start(name)
    found = problem(lambda: own.generate(prompt=f"a {word} hat"))
    assert (found["status"], found["code"]) in ((400, "moderation_blocked"), (400, "content_policy_violation"))
    assert len(own.tap.posts) == 1


@every_task
def test_a_task_that_fails(start: Start, name: str) -> None:
    """The provider's own word, and no second submit."""
    own = start(name)
    found = problem(lambda: own.generate(prompt=f"a {strict.HOPELESS} hat"))
    assert (found["status"], found["type"]) == (502, "upstream_error")
    assert len(own.tap.posts) == 1


@every_task
def test_a_state_that_is_not_known(start: Start, name: str) -> None:
    """It is waited for."""
    own = start(name)
    assert len(contents(own.generate(prompt=f"a {strict.STRANGE} hat"))) == 1
    assert len(own.tap.posts) == 1


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
    assert len(own.tap.posts) == 1


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
    assert own.tap.posts == []


def test_a_task_that_bfl_does_not_find_may_have_been_made(start: Start) -> None:
    """It is uncertain, and is not sent again."""
    own = start("bfl")
    found = problem(lambda: own.generate(prompt=f"a {bfl.LOST} hat"))
    assert (found["status"], found["code"]) == (502, "task_lost")
    assert len(own.tap.posts) == 1


def test_no_key_goes_to_a_polling_address_elsewhere(tmp_path: Path) -> None:
    """That address is never asked."""
    elsewhere = bfl.create_app()
    with serving(elsewhere) as port:
        app = bfl.create_app(polling_origin=f"http://127.0.0.1:{port}")
        with setting(tmp_path, app, "bfl", model="flux-2-pro", more=f'api_key = "{KEY}"') as own:
            found = problem(own.generate)
            assert (found["status"], found["code"]) == (502, "task_lost")
            assert len(own.tap.posts) == 1
    assert elsewhere.state.requests_seen == 0
