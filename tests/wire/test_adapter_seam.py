"""What an adapter may say, and what the gateway does about it, on real sockets, by adapters of made-up providers."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.adapters import made_up
from tests.waiting import until
from tests.wire.edit_support import mask_for, parts_of, picture

from imagegate import ConfigError, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.testing import Answer, FakeUpstream, Lost, Seen

PNG = picture(1, 64)
PICTURE = Answer(document={"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]})
WHOLE = Answer(body=PNG, headers={"content-type": "image/png"})


@pytest.fixture(autouse=True)
def announced(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.announce(monkeypatch)


@contextmanager
def gateway(
    folder: Path,
    url: str,
    adapter: str,
    more: str = 'api_key = "sk-own"',
    rest: str = "",
    deadline: str = "30s",
    delivery: str = "",
) -> Generator[httpx.Client]:
    source = f"""
        [[upstreams]]
        name = "made-up"
        adapter = "{adapter}"
        base_url = "{url}"
        {more}
        [delivery]
        store = "file://{folder / "images"}"
        {delivery}
        [tasks]
        poll_interval = "20ms"
        deadline = "{deadline}"
        [policy]
        retries = 0
        {rest}
    """
    config = parse_config(source, environment={}, directory=folder)
    with (
        serving(ImageGateway(config=config, hooks=())) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=30) as client,
    ):
        yield client


def paint(client: httpx.Client, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
    body = {"model": "made-up/painter", "prompt": "A hat", "response_format": "b64_json", **fields}
    return client.post("/images/generations", json=body, headers=headers)


def edit(client: httpx.Client, *, mask: bool = False, model: str = "painter", **fields: str) -> httpx.Response:
    files = [("image[]", (f"{name}.png", picture(place, 64), "image/png")) for place, name in enumerate("ab")]
    if mask:
        files.append(("mask", ("mask.png", mask_for(64), "image/png")))
    data = {"model": f"made-up/{model}", "prompt": "A hat", "response_format": "b64_json", **fields}
    return client.post("/images/edits", data=data, files=files)


def made(response: httpx.Response) -> list[bytes]:
    assert response.status_code == 200, response.text
    return [base64.b64decode(item["b64_json"]) for item in response.json()["data"]]


def error_of(response: httpx.Response) -> Any:
    return response.json()["error"]


# Credentials


@pytest.mark.parametrize(
    ("adapter", "key", "field", "value"),
    [
        ("openai", "sk-own", "authorization", "Bearer sk-own"),
        ("keyed", "sk-own", "x-made-up-key", "sk-own"),
        ("named", "sk-own", "authorization", "Key sk-own"),
        ("basic", "me:secret", "authorization", f"Basic {base64.b64encode(b'me:secret').decode()}"),
        ("open", "sk-own", "authorization", "Bearer sk-own"),
    ],
)
def test_a_key_goes_in_the_field_and_scheme_of_its_adapter(tmp_path, adapter, key, field, value):
    """The upstream's key arrives as the provider wants it, and nothing else that is secret; Explain shows neither."""
    with (
        FakeUpstream(PICTURE) as provider,
        gateway(tmp_path, provider.url, adapter, f'api_key = "{key}"') as client,
    ):
        assert made(paint(client, {"authorization": "Bearer sk-clients"})) == [PNG]
        shown = paint(client, {"imagegate-explain": "?1"}).json()["headers"]
    (seen,) = provider.seen
    assert seen.headers[field] == value
    assert "sk-clients" not in str(seen.headers)
    assert ("authorization" in seen.headers) == (field == "authorization")
    assert shown[field].endswith("[redacted]")
    assert key not in str(shown)


@pytest.mark.parametrize(
    ("adapter", "sent", "field", "value"),
    [
        ("openai", "Bearer sk-clients", "authorization", "Bearer sk-clients"),
        ("keyed", "Bearer sk-clients", "x-made-up-key", "sk-clients"),
        ("named", "Bearer sk-clients", "authorization", "Key sk-clients"),
        ("named", "Key sk-clients", "authorization", "Key sk-clients"),
        ("basic", "Basic bWU6c2VjcmV0", "authorization", "Basic bWU6c2VjcmV0"),
    ],
)
def test_a_clients_key_is_sent_as_the_provider_wants_it(tmp_path, adapter, sent, field, value):
    """Where the upstream has no key, the client's Authorization becomes what the provider reads."""
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, adapter, "") as client:
        assert made(paint(client, {"authorization": sent})) == [PNG]
        assert paint(client).status_code == 401
    (seen,) = provider.seen
    assert seen.headers[field] == value


def test_a_server_that_needs_no_key_gets_none_of_the_clients(tmp_path):
    """The client's key is for the gateway: a server of one's own never sees it."""
    rest = '[access]\nkeys = ["sk-clients"]'
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "open", "", rest) as client:
        assert made(paint(client, {"authorization": "Bearer sk-clients"})) == [PNG]
    assert "authorization" not in provider.seen[0].headers


def test_a_header_of_the_configuration_may_be_the_key(tmp_path):
    """It counts as a key where it has the name of the adapter's field."""
    more = 'headers = { "X-Made-Up-Key" = "sk-header" }'
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "keyed", more) as client:
        assert made(paint(client)) == [PNG]
    assert provider.seen[0].headers["x-made-up-key"] == "sk-header"


def test_a_providers_quote_of_a_key_is_not_passed_on(tmp_path):
    """Keys are taken out of errors whichever field they were sent in."""
    answer = Answer(status=400, document={"error": {"message": "The key sk-own-secret is wrong."}})
    with (
        FakeUpstream(answer) as provider,
        gateway(tmp_path, provider.url, "keyed", 'api_key = "sk-own-secret"') as client,
    ):
        response = paint(client)
    assert response.status_code == 400
    assert "sk-own-secret" not in response.text


# Tokens


def command(folder: Path, body: str) -> str:
    """A credential whose program notes each of its runs, and then does what `body` says."""
    program = folder / "token.py"
    program.write_text(
        f"import pathlib, sys, json, time\nruns = pathlib.Path({str(folder / 'runs')!r})\n"
        f"with runs.open('a') as file: file.write('x')\nrun = len(runs.read_text())\n{body}\n",
        "utf-8",
    )
    return f"[upstreams.credential]\ncommand = ['{sys.executable}', '{program}']"


def runs(folder: Path) -> int:
    file = folder / "runs"
    return len(file.read_text()) if file.exists() else 0


def test_a_token_is_fetched_once_for_all_that_wait(tmp_path):
    """Ten requests at the same time run one program, and all carry its token; Explain runs none."""
    more = command(tmp_path, "time.sleep(0.3); print(json.dumps({'access_token': f'tok-{run}', 'expires_in': 3600}))")
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "keyed", more) as client:
        assert paint(client, {"imagegate-explain": "?1"}).json()["headers"]["authorization"] == "Bearer [redacted]"
        assert runs(tmp_path) == 0
        with ThreadPoolExecutor(10) as pool:
            assert [made(each) for each in pool.map(lambda _: paint(client), range(10))] == [[PNG]] * 10
        assert made(paint(client)) == [PNG]
    assert runs(tmp_path) == 1
    assert {seen.headers["authorization"] for seen in provider.seen} == {"Bearer tok-1"}


def test_a_token_is_renewed_before_it_ends(tmp_path):
    """One that lasts for no time at all is fetched for each request."""
    more = command(tmp_path, "print(json.dumps({'access_token': f'tok-{run}', 'expires_in': 0}))")
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "openai", more) as client:
        assert made(paint(client, model="made-up/x")) == made(paint(client, model="made-up/x")) == [PNG]
    assert [seen.headers["authorization"] for seen in provider.seen] == ["Bearer tok-1", "Bearer tok-2"]


def test_a_refused_token_is_replaced_for_the_next_request(tmp_path):
    """The provider's 401 goes to the client, nothing is sent twice, and the next request has a new token."""
    more = command(tmp_path, "print(f'tok-{run}')")
    answers = (Answer(status=401, document={"error": {"message": "Expired."}}), PICTURE)
    with FakeUpstream(*answers) as provider, gateway(tmp_path, provider.url, "openai", more) as client:
        assert paint(client, model="made-up/x").status_code == 401
        assert made(paint(client, model="made-up/x")) == [PNG]
    assert [seen.headers["authorization"] for seen in provider.seen] == ["Bearer tok-1", "Bearer tok-2"]


@pytest.mark.parametrize(
    "body",
    [
        *("sys.exit(3)", "print('')", "print('two words')", "print('{}')", "print('{')", "time.sleep(60)"),
        "print('{\"access_token\": 7}')",
    ],
)
def test_without_a_token_nothing_is_sent(tmp_path, body):
    """A program that fails is an error that says so, costs nothing, and shows nothing of the program."""
    more = command(tmp_path, body) + "\ntimeout = '500ms'"
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "openai", more) as client:
        response = paint(client, model="made-up/x")
    assert (response.status_code, error_of(response)["code"]) == (502, "credential_unavailable")
    assert "x-should-retry" not in response.headers
    assert provider.seen == []
    assert "token.py" not in response.text


async def own_token() -> dict[str, Any]:
    return {"access_token": "tok-async", "expires_in": 60}


def plain_token() -> str:
    return "tok-plain"


@pytest.mark.parametrize(("name", "token"), [("own_token", "tok-async"), ("plain_token", "tok-plain")])
def test_a_function_of_the_application_gives_the_token(tmp_path, name, token):
    """It may be async, and return text or what RFC 6749 says."""
    sys.modules["tokens_of_a_test"] = sys.modules[__name__]
    more = f"[upstreams.credential]\ncallable = 'tokens_of_a_test:{name}'"
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "openai", more) as client:
        assert made(paint(client, model="made-up/x")) == [PNG]
    assert provider.seen[0].headers["authorization"] == f"Bearer {token}"


# Requests


def test_a_model_in_path_and_query_and_a_picture_as_the_reply(tmp_path):
    """The adapter's path, query and headers arrive, and the bytes of the reply are the picture, in both forms."""
    with FakeUpstream(WHOLE) as provider, gateway(tmp_path, provider.url, "bytes") as client:
        assert made(paint(client)) == [PNG]
        link = paint(client, response_format="url").json()["data"][0]["url"]
        assert httpx.get(link).content == PNG
    first = provider.seen[0]
    assert (first.method, first.path, first.query) == ("POST", "/v7/models/painter:paint", (("model", "painter"),))
    assert (first.headers["accept"], first.json) == ("image/*", {"prompt": "A hat"})


def test_an_empty_picture_is_no_picture(tmp_path):
    """A reply that says that it is a picture, and is none, is uncertain: it may have been billed."""
    for body in (b"", b"<html>"):
        answer = Answer(body=body, headers={"content-type": "image/png"})
        with FakeUpstream(answer) as provider, gateway(tmp_path, provider.url, "bytes") as client:
            for form in ("url", "b64_json"):
                response = paint(client, response_format=form)
                assert response.status_code == 502
                assert response.headers["x-should-retry"] == "false"
        assert len(provider.posts) == 2


def test_files_become_base64_in_json(tmp_path):
    """Files and mask are in the document as the adapter placed them, with a length, and Explain tells of them."""
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "inline") as client:
        assert made(edit(client, mask=True)) == [PNG]
        shown = client.post(
            "/images/edits",
            headers={"imagegate-explain": "?1"},
            data={"model": "made-up/painter", "prompt": "A hat"},
            files={"image": ("a.png", picture(0, 64), "image/png")},
        ).json()["body"]
    (seen,) = provider.seen
    heads = [item["data"].partition(",")[0] for item in seen.json["images"]]
    files = [base64.b64decode(item["data"].partition(",")[2]) for item in seen.json["images"]]
    assert heads == ["data:image/png;base64"] * 2
    assert files == [picture(0, 64), picture(1, 64)]
    assert base64.b64decode(seen.json["mask"]) == mask_for(64)
    assert seen.headers["content-type"] == "application/json"
    assert int(seen.headers["content-length"]) == len(seen.body)
    assert shown["images"][0]["data"]["filename"] == "a.png"


def test_links_stay_links_where_the_adapter_takes_both(tmp_path):
    """A link is handed on as it is, unless the contract takes files only: then it is fetched."""
    body = {"model": "made-up/painter", "prompt": "A hat", "images": [{"image_url": "https://a.example/1.png"}]}
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "inline") as client:
        assert client.post("/images/edits", json=body).status_code == 200
        refused = client.post(
            "/images/edits",
            json={**body, "model": "made-up/files-only", "images": [{"image_url": "http://127.0.0.1:9/"}]},
        )
    assert [seen.json["images"] for seen in provider.posts] == [[{"link": "https://a.example/1.png"}]]
    assert (refused.status_code, error_of(refused)["code"]) == (400, "invalid_url")


def test_files_are_uploaded_and_named_by_id(tmp_path):
    """Each file and the mask go to the upload API once, in order, before the request that names them."""
    names = iter(("first.png", "second.png", "mask.png"))

    def handler(seen: Seen) -> Answer:
        return Answer(document={"name": next(names)}) if seen.path == "/upload" else PICTURE

    with FakeUpstream(handler=handler) as provider, gateway(tmp_path, provider.url, "uploads") as client:
        assert made(edit(client, mask=True)) == [PNG]
    assert [seen.path for seen in provider.seen] == ["/upload"] * 3 + ["/paint"]
    (part,) = parts_of(provider.seen[0].headers["content-type"], provider.seen[0].body)
    assert part.content == picture(0, 64)
    assert provider.seen[-1].json == {"ids": ["first.png", "second.png"], "mask": "mask.png"}


def test_an_upload_that_fails_costs_nothing(tmp_path):
    """The paid request is not sent, and the client may retry."""
    answer = Answer(status=500, document={"error": {"message": "Disk full."}})
    with FakeUpstream(answer) as provider, gateway(tmp_path, provider.url, "uploads") as client:
        response = edit(client)
    assert {seen.path for seen in provider.seen} == {"/upload"}
    assert response.status_code == 500
    assert "x-should-retry" not in response.headers


# Jobs


class Jobs:
    """A queue: accepts, is at work for one question, then over; its pictures need the key."""

    def __init__(self, *, submit: Callable[[Seen], Any] | None = None, **states: Any) -> None:
        self.submit = submit
        self.states = states
        self.known: set[str] = set()
        self.asked = 0

    def __call__(self, seen: Seen) -> Any:
        if seen.headers.get("x-key") != "sk-own":
            return Answer(status=401, document={"error": "no key"})
        if seen.method == "POST":
            job = seen.json["id"]
            answer = self.submit(seen) if self.submit else None
            if not isinstance(answer, Answer):
                self.known.add(job)
            return answer or Answer(document={"id": job, "state": "queued"})
        if seen.path.startswith("/files/"):
            return self.states.get("file", Answer(body=PNG, headers={"content-type": "application/octet-stream"}))
        job = seen.path.split("/")[2]
        if job not in self.known:
            return Answer(status=404, document={"error": "Job not found"})
        if seen.path.endswith("/result"):
            return Answer(document={"pictures": self.states.get("pictures", ["/files/1.png"])})
        self.asked += 1
        state = self.states.get("state", "over") if self.asked > 1 else "working"
        return Answer(document={"id": job, "state": state, **self.states.get("more", {})})


def test_submit_poll_result_and_a_picture_that_needs_the_key(tmp_path):
    """The client gets the picture in its form, no path of the provider's disk, and no link that needs the key."""
    with FakeUpstream(handler=Jobs()) as provider, gateway(tmp_path, provider.url, "queue") as client:
        response = paint(client)
        assert made(response) == [PNG]
        linked = paint(client, response_format="url")
        assert httpx.get(linked.json()["data"][0]["url"]).content == PNG
    assert "file_path" not in response.text + linked.text
    assert provider.url not in linked.text
    assert [seen.path.split("/")[1] for seen in provider.seen[:5]] == ["jobs"] * 4 + ["files"]
    assert len(provider.posts) == 2


def test_the_same_behind_a_path_of_ones_own(tmp_path):
    """Where `base_url` has a path, jobs and pictures are below it."""
    jobs = Jobs()

    def handler(seen: Seen) -> Any:
        assert seen.path.startswith("/behind/"), seen.path
        import msgspec

        return jobs(msgspec.structs.replace(seen, path=seen.path.removeprefix("/behind")))

    with FakeUpstream(handler=handler) as provider, gateway(tmp_path, f"{provider.url}/behind", "queue") as client:
        assert made(paint(client)) == [PNG]


def test_a_job_of_a_client_that_asks_for_a_task(tmp_path):
    """Its questions follow the job to its result, and the picture is a copy in the store."""
    with FakeUpstream(handler=Jobs()) as provider, gateway(tmp_path, provider.url, "queue") as client:
        created = paint(client, **{"async": True})
        assert created.status_code == 202
        document: dict[str, Any] = {}

        def is_over() -> bool:
            document.update(client.get(created.headers["location"].removeprefix("/v1")).json())
            return document["status"] in ("completed", "failed")

        until(is_over)
        assert document["status"] == "completed", document
        assert httpx.get(document["data"][0]["url"]).content == PNG
    assert len(provider.posts) == 1


def test_no_key_goes_to_another_origin(tmp_path):
    """A result elsewhere is fetched without the key; a job elsewhere is not asked for at all."""
    with (
        FakeUpstream(Answer(body=PNG, headers={"content-type": "image/png"})) as other,
        FakeUpstream(handler=Jobs(pictures=[f"{other.url}/1.png"])) as provider,
        gateway(tmp_path, provider.url, "queue", delivery='fetch_allow = ["127.0.0.1"]') as client,
    ):
        assert made(paint(client)) == [PNG]
        assert ["x-key" in seen.headers for seen in other.seen] == [False]
    with (
        FakeUpstream(WHOLE) as other,
        FakeUpstream(handler=Jobs(more={"where": f"{other.url}/jobs/1"})) as provider,
        gateway(tmp_path, provider.url, "queue") as client,
    ):
        response = paint(client)
    assert (response.status_code, error_of(response)["code"]) == (502, "task_lost")
    assert other.seen == []


@pytest.mark.parametrize("answer", [Answer(status=404, body=b"gone"), Answer(status=503, body=b"busy"), Lost()])
def test_a_picture_that_cannot_be_loaded_is_an_error(tmp_path, answer):
    """It was made, so nothing is sent again, and the client is told not to retry."""
    with FakeUpstream(handler=Jobs(file=answer)) as provider, gateway(tmp_path, provider.url, "queue") as client:
        response = paint(client)
    assert (response.status_code, error_of(response)["code"]) == (502, "image_fetch_failed")
    assert response.headers["x-should-retry"] == "false"
    assert len(provider.posts) == 1


def test_a_lost_submit_is_looked_up(tmp_path):
    """The job's id is ours: where the reply is lost, it is asked for, and not sent again."""
    with (
        FakeUpstream(handler=Jobs(submit=lambda _: Lost())) as provider,
        gateway(tmp_path, provider.url, "queue") as client,
    ):
        assert made(paint(client)) == [PNG]
    assert len(provider.posts) == 1
    assert provider.seen[1].path == f"/jobs/{provider.posts[0].json['id']}"


def test_a_lost_submit_that_never_arrived_is_uncertain(tmp_path):
    """The provider does not know the job: perhaps it comes later, so that it is not sent again."""
    page = Answer(status=502, body=b"<html>Bad gateway</html>")
    with (
        FakeUpstream(handler=Jobs(submit=lambda _: page)) as provider,
        gateway(tmp_path, provider.url, "queue", deadline="2s") as client,
    ):
        response = paint(client)
    assert len([seen for seen in provider.seen if seen.method == "GET"]) >= 1
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_uncertain")
    assert response.headers["x-should-retry"] == "false"
    assert len(provider.posts) == 1


def test_an_unknown_state_is_waited_for_and_a_broken_job_is_refused(tmp_path):
    """Only the provider's own word ends a job."""
    for state, code, deadline in (
        ("dreaming", "upstream_timeout", "500ms"),
        ("broken", "generation_failed", "20s"),
    ):
        with (
            FakeUpstream(handler=Jobs(state=state)) as provider,
            gateway(tmp_path, provider.url, "queue", deadline=deadline) as client,
        ):
            response = paint(client)
        assert error_of(response)["code"] == code
        assert len(provider.posts) == 1


def test_a_task_is_asked_for_by_post(tmp_path):
    """At the address that the request gave it, as often as it takes, with what the adapter asks."""
    answers = (Answer(document={"ticket": "7"}), Answer(document={"status": "Pending", "id": "7"}))
    with (
        FakeUpstream(*answers, Answer(document={"data": [{"b64_json": base64.b64encode(PNG).decode()}]})) as provider,
        gateway(tmp_path, provider.url, "asked") as client,
    ):
        assert made(paint(client)) == [PNG]
    assert [seen.path for seen in provider.posts] == ["/paint", *["/models/painter/result"] * 2]
    assert [seen.json for seen in provider.posts[1:]] == [{"id": "7"}] * 2


def test_no_question_goes_to_another_address_by_post(tmp_path, monkeypatch):
    """A POST to a path that is not marked as one for questions might be paid for."""
    monkeypatch.setattr(made_up.Asked, "asks_at", "/models/{model}/paint")
    with (
        FakeUpstream(Answer(document={"ticket": "7"})) as provider,
        gateway(tmp_path, provider.url, "asked") as client,
    ):
        assert error_of(paint(client))["code"] == "task_lost"
    assert len(provider.posts) == 1


def test_nothing_is_paid_for_at_an_address_for_questions(tmp_path, monkeypatch):
    """What is asked there may be asked again, so the request is not sent at all."""
    monkeypatch.setattr(made_up.Asked, "question_suffix", "/paint")
    with FakeUpstream(Answer(document={})) as provider, gateway(tmp_path, provider.url, "asked") as client:
        assert paint(client).status_code == 502
    assert provider.seen == []


# Money


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("refused", Answer(status=502, document={"error": "bad gateway"})),
        ("refused", Answer(status=503, body=b"<html>")),
        ("unsent", Answer(document={})),
        ("crash", Answer(document={})),
        ("empty", Answer(document={})),
        ("task", Answer(document={})),
    ],
)
def test_an_adapter_cannot_make_a_paid_request_free(tmp_path, monkeypatch, mode, answer):
    """Whatever it says of an ambiguous reply, or fails to say, the request counts as perhaps paid."""
    monkeypatch.setattr(made_up.Careless, "mode", mode)
    with (
        FakeUpstream(answer) as provider,
        gateway(tmp_path, provider.url, "careless", 'api_key = "sk-own"', "") as client,
    ):
        response = paint(client)
    assert response.headers["x-should-retry"] == "false"
    assert error_of(response)["imagegate"]["outcome"] == "uncertain" if "outcome" in response.text else True
    assert len(provider.seen) == 1


# Replies and parameters


def test_hidden_members_do_not_reach_clients(tmp_path):
    """Neither from a small reply nor from one that would be passed on as it is."""
    for size in (64, 2_000_000):
        content = PNG + bytes(size)
        document = {
            "created": 1,
            "file_path": "/srv",
            "data": [{"b64_json": base64.b64encode(content).decode(), "file_path": "/srv/1.png"}],
        }
        with (
            FakeUpstream(Answer(document=document)) as provider,
            gateway(tmp_path, provider.url, "hiding") as client,
        ):
            response = paint(client)
        assert made(response) == [content]
        assert "file_path" not in response.text


LARGE = base64.b64encode(PNG + bytes(2_000_000)).decode()


def test_what_a_large_reply_says_is_read_as_in_a_small_one(tmp_path):
    """Of xAI that a picture was withheld, of OpenRouter how many tokens it took."""
    withheld = {"data": [{"b64_json": LARGE}, {"b64_json": "", "respect_moderation": False}]}
    with FakeUpstream(Answer(document=withheld)) as provider, gateway(tmp_path, provider.url, "xai") as client:
        response = paint(client, model="made-up/grok-imagine-image-2.0", n=2)
    error = error_of(response)
    assert (response.status_code, error["code"], len(error["imagegate"]["data"])) == (400, "moderation_blocked", 1)
    usage = {"prompt_tokens": 10, "completion_tokens": 1120, "total_tokens": 1130, "cost": 0.04}
    counted = {"created": 1, "data": [{"b64_json": LARGE}], "usage": usage}
    with FakeUpstream(Answer(document=counted)) as provider, gateway(tmp_path, provider.url, "openrouter") as client:
        response = paint(client, model="made-up/google/gemini-2.5-flash-image")
    assert made(response) == [base64.b64decode(LARGE)]
    found = response.json()["usage"]
    assert (found["input_tokens"], found["output_tokens"], found["total_tokens"]) == (10, 1120, 1130)


def test_a_model_without_a_contract_gets_no_async_of_ours(tmp_path):
    """A task of the gateway's own needs none of the provider's, which may refuse the member."""
    with FakeUpstream(Answer(document={"request_id": "r", "status": "IN_QUEUE"})) as provider:
        with gateway(tmp_path, provider.url, "fal") as client:
            response = paint(client, model="made-up/fal-ai/un/known", response_format="url", **{"async": True})
        assert response.status_code == 202
        assert json.loads(provider.seen[0].body) == {"prompt": "A hat"}


def test_hidden_members_are_in_no_event(tmp_path):
    """Nor in one that carries a whole reply."""
    image = base64.b64encode(PNG + bytes(64)).decode()
    events = (
        {"type": "image_generation.partial_image", "b64_json": image, "partial_image_index": 0, "file_path": "/srv"},
        {"type": "image_generation.completed", "b64_json": image, "file_path": "/srv", "x": [{"file_path": "/srv"}]},
    )
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    answer = Answer(headers={"content-type": "text/event-stream"}, body=body)
    with FakeUpstream(answer) as provider, gateway(tmp_path, provider.url, "hiding") as client:
        for _ in range(2):
            response = paint(client, stream=True)
            assert response.text.count(image) == len(events), response.text
            assert "file_path" not in response.text


def test_what_a_client_leaves_out_is_sent_and_disclosed(tmp_path):
    """A seed of our own for each request, and a constant; what the client sends itself stays."""
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "hiding") as client:
        responses = [paint(client) for _ in range(12)]
        own = paint(client, seed=7, steps=3)
    changes = responses[0].headers["imagegate-changes"]
    assert 'seed;added;to="random"' in changes
    assert "steps;added;to=20" in changes
    assert len({seen.json["seed"] for seen in provider.seen[:12]}) > 1
    assert (provider.seen[-1].json["seed"], provider.seen[-1].json["steps"]) == (7, 3)
    assert "seed" not in own.headers["imagegate-changes"]


# Options


def test_options_reach_the_adapter_and_files_are_found_beside_the_configuration(tmp_path):
    """An option that names a file is read when the gateway starts."""
    (tmp_path / "flow.json").write_text('{"1": {}}', "utf-8")
    more = 'api_key = "sk-own"\noptions = { workflow = "flow.json", steps = 4 }'
    with FakeUpstream(PICTURE) as provider, gateway(tmp_path, provider.url, "options", more) as client:
        assert made(paint(client)) == [PNG]
    assert provider.seen[0].json == {"workflow": '{"1": {}}', "steps": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{ stepz = 1 }", "upstreams[0].options: Object contains unknown field `stepz`"),
        ('{ steps = "many" }', "upstreams[0].options.steps: Expected `int`, got `str`"),
        ('{ workflow = "none.json" }', "upstreams[0].options.workflow: "),
        ("{ workflow = 3 }", "upstreams[0].options.workflow: Expected the name of a file"),
        ('{ workflow = "empty.json" }', "upstreams[0].options.workflow: is no JSON"),
    ],
)
def test_wrong_options_are_told_at_the_start(tmp_path, options, message):
    """With the key that is wrong."""
    (tmp_path / "empty.json").write_text("", "utf-8")
    source = f'[[upstreams]]\nname = "o"\nadapter = "options"\napi_key = "k"\noptions = {options}'
    with pytest.raises(ConfigError) as caught:
        parse_config(source, environment={}, directory=tmp_path)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("[upstreams.credential]", "upstreams[0].credential: must have one of command and callable"),
        ('[upstreams.credential]\ncommand = ["a"]\ncallable = "b:c"', "upstreams[0].credential: must have one of"),
        ('api_key = "k"\n[upstreams.credential]\ncommand = ["a"]', "upstreams[0].credential: there is an api_key"),
        (
            '[upstreams.credential]\ncallable = "no.such:thing"',
            "upstreams[0].credential: callable: 'no.such:thing' cannot",
        ),
        (
            '[upstreams.credential]\ncallable = "json:__doc__"',
            "upstreams[0].credential: callable: 'json:__doc__' cannot be called",
        ),
    ],
)
def test_wrong_credentials_are_told_at_the_start(lines, message):
    """With the key that is wrong."""
    with pytest.raises(ConfigError) as caught:
        parse_config(f'[[upstreams]]\nname = "openai"\n{lines}', environment={})
    assert str(caught.value).startswith(message)


def test_an_adapter_without_an_address_needs_one():
    """A server of one's own is wherever it is."""
    with pytest.raises(
        ConfigError, match=r"^upstreams\[0\]\.base_url: the adapter 'nowhere' has no address of its own$"
    ):
        parse_config('[[upstreams]]\nname = "nowhere"\napi_key = "k"', environment={})
