"""The simulators that speak OpenAI's paths refuse and drop what their servers do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.demo.support import picture_file
from tests.simulators import azure, localai, ollama, sglang, stable_diffusion_cpp, vllm_omni
from tests.simulators.base import KEY
from tests.simulators.support import client_of, mask, pictures_of, size_of_base64

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
BARE = base64.b64encode(picture_file(32, 32)).decode()
DATA_URL = f"data:image/png;base64,{BARE}"
IMAGE = ("image", ("in.png", picture_file(64, 32), "image/png"))
LISTED = ("image[]", IMAGE[1])
LOCALAI, OLLAMA = {"model": "flux.1-dev"}, {"model": ollama.MODELS[0]}


def sent(app: Any, body: dict[str, Any], path: str = GENERATIONS) -> Any:
    return client_of(app).post(path, json={"prompt": "a cat", **body})


def edited(app: Any, data: dict[str, str], *files: Any, path: str = EDITS) -> Any:
    return client_of(app).post(path, data={"prompt": "a cat", **data}, files=list(files))


class TestVLLMOmni:
    def test_pictures(self) -> None:
        """Size, number and format; nothing was dropped."""
        app = vllm_omni.create_app()
        fields = {"size": "640x480", "n": 2, "output_format": "webp", "model": vllm_omni.SERVED, "seed": 3}
        found = pictures_of(sent(app, fields))
        assert {size_of_base64(text) for text in found} == {(640, 480, "WEBP")}
        assert len(set(found)) == 2
        assert app.state.dropped == []
        assert found == pictures_of(sent(app, fields))
        assert pictures_of(sent(app, {})) != pictures_of(sent(app, {}))

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"prompt": None}, 422),
            ({"size": "auto"}, 422),
            ({"size": "1024x"}, 400),
            ({"n": 0}, 422),
            ({"n": 11}, 422),
            ({"n": "many"}, 422),
            ({"response_format": "url"}, 422),
            ({"guidance_scale": 21}, 422),
            ({"layers": 1}, 422),
            ({"lora": "name"}, 422),
            ({"model": "gpt-image-2"}, 400),
            ({"output_format": "gif"}, 400),
            ({"prompt": "engine-failure"}, 500),
            ({"size": "5000x5000"}, 400),
        ],
    )
    def test_refusals(self, body: dict[str, Any], status: int) -> None:
        """pydantic's list, a text, or the engine's own envelope."""
        if body.get("prompt", "") is None:
            response = client_of(vllm_omni.create_app()).post(GENERATIONS, json={"n": 1})
        else:
            response = sent(vllm_omni.create_app(largest=4_000_000), body)
        assert response.status_code == status
        document = response.json()
        assert isinstance(document.get("detail"), {400: str, 422: list, 500: type(None)}[status])
        if status == 500:
            assert document["error"]["code"] == 500

    def test_what_it_drops(self) -> None:
        """Unknown members pass without a word."""
        app = vllm_omni.create_app()
        pictures_of(sent(app, {"quality": "high", "style": "vivid", "user": "me"}))
        pictures_of(edited(app, {"quality": "high"}, IMAGE, ("mask", ("m.png", mask(by="alpha"), "image/png"))))
        assert app.state.dropped == ["quality", "style", "user", "quality", "mask"]
        assert app.state.repainted == []

    def test_edits(self) -> None:
        """`auto` is the first picture's size; a mask has its own name and paints what is white."""
        app = vllm_omni.create_app(most_images=2)
        part = ("mask_image", ("m.png", mask(by="white"), "image/png"))
        assert size_of_base64(pictures_of(edited(app, {"output_format": "jpg"}, LISTED, LISTED, part))[0]) == (
            64,
            32,
            "JPEG",
        )
        assert [painted.at(0.5, y) for painted in app.state.repainted for y in (0, 1)] == [True, False]
        assert size_of_base64(pictures_of(edited(app, {"size": "80x64"}, IMAGE))[0])[:2] == (80, 64)
        assert app.state.dropped == []
        for data, files, status in (
            ({}, [], 422),
            ({}, [LISTED] * 3, 400),
            ({"response_format": "url"}, [IMAGE], 400),
            ({"stream": "true"}, [IMAGE], 400),
            ({"model": "x"}, [IMAGE], 400),
            ({}, [("image", ("a", b"no", "image/png"))], 400),
        ):
            assert edited(app, data, *files).status_code == status
        assert client_of(app).post(EDITS, json={"prompt": "a"}).status_code == 422

    def test_stream_of_a_pipeline(self) -> None:
        """Words, then the pictures, then `[DONE]`; not OpenAI's events."""
        text = edited(vllm_omni.create_app(stages=2), {"stream": "true"}, IMAGE).text
        frames = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert frames[-1] == "[DONE]"
        assert [json.loads(frame)["type"] for frame in frames[:-1]] == ["ar_delta", "image"]

    def test_key(self) -> None:
        """A wrong one is `{"error": "Unauthorized"}`."""
        app = vllm_omni.create_app(has_key=True)
        response = client_of(app).get("/v1/models")
        assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})
        assert client_of(app, authorization=f"Bearer {KEY}").get("/v1/models").status_code == 200


class TestSGLang:
    def test_links_need_a_place(self) -> None:
        """The default is a link, and without a place that is a 400; with one it is relative."""
        assert sent(sglang.create_app(), {}).status_code == 400
        app = sglang.create_app(keeps_files=True)
        items = sent(app, {"n": 2}).json()["data"]
        assert {item["file_path"][:12] for item in items} == {"/srv/outputs"}
        assert items[0]["url"].startswith("/v1/images/")
        assert [client_of(app).get(item["url"]).status_code for item in items] == [200, 200]
        assert client_of(app).get(items[0]["url"] + "9").status_code == 404
        assert client_of(app).get("/v1/images/none/content").json() == {"detail": "Image not found"}

    def test_one_seed_for_all(self) -> None:
        """Equal prompts make equal pictures; within a request they differ."""
        app = sglang.create_app()
        body = {"response_format": "b64_json", "n": 2}
        first, second = pictures_of(sent(app, body)), pictures_of(sent(app, body))
        assert first == second
        assert first[0] != first[1]
        assert pictures_of(sent(app, {**body, "seed": 5})) != first
        assert size_of_base64(first[0]) == (1024, 1024, "JPEG")

    def test_what_it_drops(self) -> None:
        """The mask, a number beyond ten, a size that cannot be read, members it does not know."""
        app = sglang.create_app()
        assert len(pictures_of(sent(app, {"response_format": "b64_json", "n": 12, "size": "auto", "style": "v"}))) == 10
        pictures_of(edited(app, {}, IMAGE, ("mask", ("m.png", mask(by="alpha"), "image/png"))))
        assert app.state.dropped == ["style", "n", "size", "mask"]

    def test_refusals(self) -> None:
        """FastAPI's."""
        app = sglang.create_app()
        assert edited(app, {}).json() == {"detail": "Field 'image' or 'url' is required"}
        assert edited(app, {}, ("image", ("a", b"no", "image/png"))).status_code == 400
        assert client_of(app).post(GENERATIONS, json={}).status_code == 422
        assert sent(app, {"response_format": "file"}).status_code == 400
        assert sent(app, {"response_format": "b64_json", "prompt": "scheduler-failure"}).text == "Internal Server Error"
        assert edited(app, {"size": "32x16", "output_format": "png"}, LISTED, LISTED).status_code == 200


class TestStableDiffusionCpp:
    def test_pictures(self) -> None:
        """The seed is the server's, so equal prompts make equal pictures."""
        app = stable_diffusion_cpp.create_app()
        first = pictures_of(sent(app, {"n": 2, "size": "128x64", "output_format": "webp"}))
        assert first == pictures_of(sent(app, {"n": 2, "size": "128x64", "output_format": "webp"}))
        assert first[0] != first[1]
        assert size_of_base64(first[0]) == (128, 64, "WEBP")
        assert app.state.dropped == []

    @pytest.mark.parametrize("size", ["auto", "large", "x64"])
    def test_a_size_that_cannot_be_read(self, size: str) -> None:
        """It becomes the server's own."""
        app = stable_diffusion_cpp.create_app()
        assert size_of_base64(pictures_of(sent(app, {"size": size}))[0])[:2] == (512, 512)
        assert app.state.dropped == ["size"]

    def test_arguments_in_the_prompt(self) -> None:
        """They change what the request asked for."""
        app = stable_diffusion_cpp.create_app()
        extra = '<sd_cpp_extra_args>{"width": 64, "seed": 7}</sd_cpp_extra_args>'
        assert size_of_base64(pictures_of(sent(app, {"prompt": f"a cat{extra}"}))[0])[:2] == (64, 512)
        bad = "a<sd_cpp_extra_args>{</sd_cpp_extra_args>"
        assert sent(app, {"prompt": bad}).json() == {"error": "invalid sd_cpp_extra_args"}

    @pytest.mark.parametrize(
        ("body", "status", "error"),
        [
            ({"prompt": ""}, 400, "prompt required"),
            ({"output_format": "gif"}, 400, "invalid output_format, must be one of [png, jpeg, webp]"),
            ({"size": "0x64"}, 400, "invalid params"),
            ({"n": "2"}, 500, "server_error"),
            ({"size": None}, 500, "server_error"),
            ({"prompt": "no-results"}, 500, "generate_image returned no results"),
        ],
    )
    def test_refusals(self, body: dict[str, Any], status: int, error: str) -> None:
        """`error` is a string."""
        response = sent(stable_diffusion_cpp.create_app(), body)
        assert (response.status_code, response.json()["error"]) == (status, error)

    def test_edits(self) -> None:
        """Forms only; what is no picture is skipped; no webp; a mask paints what is white."""
        app = stable_diffusion_cpp.create_app()
        part = ("mask", ("m.png", mask(by="white"), "image/png"))
        found = pictures_of(edited(app, {}, LISTED, ("image[]", ("a", b"no", "image/png")), part))
        assert size_of_base64(found[0])[:2] == (64, 32)
        assert app.state.dropped == ["image"]
        assert app.state.repainted[0].at(0.5, 0)
        for data, files in (({}, []), ({"output_format": "webp"}, [IMAGE]), ({"prompt": ""}, [IMAGE])):
            assert edited(app, data, *files).status_code == 400
        assert client_of(app).post(EDITS, json={"prompt": "a"}).status_code == 400
        assert client_of(app).post("/v1/images/variations").text == ""
        assert client_of(app).post(GENERATIONS, content=b"").json() == {"error": "empty body"}
        assert client_of(app).post(GENERATIONS, content=b"{").status_code == 500

    def test_jobs(self) -> None:
        """Accepted with 202, asked for under a relative address; the queue is short."""
        app = stable_diffusion_cpp.create_app(job_seconds=1000)
        client = client_of(app)
        body = {"prompt": "a cat", "width": 64, "height": 64, "batch_count": 2, "seed": -1, "init_image": DATA_URL}
        first, second = (client.post("/sdcpp/v1/img_gen", json=body) for _ in range(2))
        assert (first.status_code, first.json()["status"]) == (202, "queued")
        third = client.post("/sdcpp/v1/img_gen", json=body)
        assert (third.status_code, third.json()) == (429, {"error": "job queue is full"})
        running, waiting = first.json()["poll_url"], second.json()["poll_url"]
        assert [client.get(url).json()["status"] for url in (running, waiting)] == ["generating", "queued"]
        assert client.post(f"{running}/cancel").status_code == 409
        assert client.post(f"{waiting}/cancel").json()["error"]["code"] == "cancelled"
        assert client.get("/sdcpp/v1/jobs/none").status_code == 404
        assert client.get("/sdcpp/v1/capabilities").json()["limits"]["max_batch_count"] == 8

    def test_jobs_end(self) -> None:
        """With pictures or with an error; later they are gone."""
        client = client_of(stable_diffusion_cpp.create_app())
        done = client.post("/sdcpp/v1/img_gen", json={"prompt": "a cat", "mask_image": BARE, "ref_images": [BARE]})
        assert len(client.get(done.json()["poll_url"]).json()["result"]["images"]) == 1
        failed = client.post("/sdcpp/v1/img_gen", json={"prompt": "no-results"})
        assert client.get(failed.json()["poll_url"]).json()["error"]["code"] == "generation_failed"
        client = client_of(stable_diffusion_cpp.create_app(kept_seconds=0))
        gone = client.post("/sdcpp/v1/img_gen", json={"prompt": "a cat"}).json()["poll_url"]
        assert (client.get(gone).status_code, client.get(gone).json()) == (410, {"error": "job expired"})
        for body in ({"prompt": 1}, {"prompt": "a", "width": "wide"}, {"prompt": "a", "init_image": "no"}, {}):
            assert client.post("/sdcpp/v1/img_gen", json=body).status_code == 400
        assert client.post("/sdcpp/v1/img_gen", content=b"{").json()["error"] == "invalid json"


class TestLocalAI:
    def test_links_or_base64(self) -> None:
        """A link is the default."""
        app = localai.create_app()
        link = sent(app, {**LOCALAI, "size": "64x32"}).json()["data"][0]["url"]
        assert client_of(app).get(link.partition("testserver")[2]).status_code == 200
        assert client_of(app).get("/generated-images/none.png").status_code == 404
        found = pictures_of(sent(app, {**LOCALAI, "response_format": "b64_json", "n": 2, "size": "64x32"}))
        assert size_of_base64(found[0])[:2] == (64, 32)
        assert found[0] != found[1]

    def test_a_seed_makes_n_equal_pictures(self) -> None:
        """Each of them begins with it."""
        first, second = pictures_of(
            sent(localai.create_app(), {**LOCALAI, "response_format": "b64_json", "n": 2, "seed": 5})
        )
        assert first == second

    def test_what_it_drops(self) -> None:
        """Data URLs, sizes that cannot be read, members it does not know; a prompt is cut at a bar."""
        app = localai.create_app()
        body = {**LOCALAI, "ref_images": [BARE, DATA_URL], "size": "auto", "quality": "hd", "prompt": "a | b"}
        assert sent(app, body).status_code == 200
        assert app.state.dropped == ["quality", "ref_images", "size"]
        assert [len(images) for images in app.state.references] == [1]
        assert app.state.prompts == [("a ", " b")]
        assert sent(app, {**LOCALAI, "file": "http://example.com/a.png"}).status_code == 200

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({}, 400),
            ({"model": "none"}, 500),
            ({**LOCALAI, "size": "1x2x3"}, 500),
            ({**LOCALAI, "n": "2"}, 400),
            ({**LOCALAI, "ref_images": BARE}, 400),
            ({**LOCALAI, "prompt": "backend-failure"}, 500),
        ],
    )
    def test_refusals(self, body: dict[str, Any], status: int) -> None:
        """The code is a number."""
        response = sent(localai.create_app(), body)
        assert (response.status_code, response.json()["error"]["code"]) == (status, status)

    def test_masks_have_a_path_of_their_own(self) -> None:
        """White is painted, the picture is 512x512, the answer a link; there are no edits."""
        app = localai.create_app()
        part = ("mask", ("m.png", mask(by="white"), "image/png"))
        path = "/v1/images/inpainting"
        link = edited(app, LOCALAI, IMAGE, part, path=path).json()["data"][0]["url"]
        content = client_of(app).get(link.partition("testserver")[2]).content
        assert size_of_base64(base64.b64encode(content).decode())[:2] == (512, 512)
        assert edited(app, {**LOCALAI, "size": "64x64"}, IMAGE, part, path=path).status_code == 200
        assert app.state.dropped == ["size"]
        assert app.state.repainted[0].at(0.5, 0)
        for data, files in (({}, [IMAGE, part]), (LOCALAI, [IMAGE]), (LOCALAI, [part])):
            assert edited(app, data, *files, path=path).status_code == 400
        assert edited(app, LOCALAI, IMAGE).status_code == 404
        assert client_of(localai.create_app(has_key=True)).get("/v1/models").status_code == 401


class TestOllama:
    def test_one_picture(self) -> None:
        """Whatever `n` says; no links; and other members are not read."""
        app = ollama.create_app()
        found = pictures_of(sent(app, {**OLLAMA, "size": "64x32", "n": 3, "response_format": "url", "seed": 1}))
        assert [size_of_base64(text) for text in found] == [(64, 32, "PNG")]
        assert app.state.dropped == ["n", "response_format"]
        assert size_of_base64(pictures_of(sent(app, {**OLLAMA, "size": "auto"}))[0])[:2] == (1024, 1024)
        assert app.state.dropped[-1] == "size"

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({}, 400),
            ({**OLLAMA, "prompt": ""}, 400),
            ({"model": "none"}, 404),
            ({**OLLAMA, "n": "2"}, 400),
            ({**OLLAMA, "size": "0x5"}, 400),
            ({**OLLAMA, "prompt": "runner-failure"}, 500),
        ],
    )
    def test_refusals(self, body: dict[str, Any], status: int) -> None:
        """OpenAI's envelope."""
        response = sent(ollama.create_app(), body)
        assert response.status_code == status
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}

    def test_edits_take_json_with_one_picture(self) -> None:
        """As a data URL: links, bare base64, forms and lists are refused."""
        app = ollama.create_app()
        body = {**OLLAMA, "image": DATA_URL}
        assert sent(app, body, EDITS).status_code == 200
        assert app.state.sources == [picture_file(32, 32)]
        for image in ("", BARE, "https://example.com/a.png", [DATA_URL], "data:image/gif;base64,AAAA", None):
            assert sent(app, {**body, "image": image}, EDITS).status_code == 400
        assert sent(app, {**body, "image": "data:;base64,AAAA"}, EDITS).status_code == 500
        assert edited(app, OLLAMA, IMAGE).status_code == 400
        assert client_of(app).post("/v1/images/variations").text == "404 page not found"


class TestAzure:
    V1, BY_PATH = "/openai/v1/images/", "/openai/deployments/pictures/images/"

    def post(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        headers = headers or {"api_key": KEY}
        return client_of(azure.create_app(), **headers).post(path, json={"prompt": "a cat", **body})

    def test_both_forms(self) -> None:
        """A deployment in the body, or in the path."""
        assert pictures_of(self.post(f"{self.V1}generations?api-version=preview", {"model": "pictures"}))
        path = f"{self.BY_PATH}generations?api-version={azure.VERSION}"
        assert pictures_of(self.post(path, {}))
        assert pictures_of(self.post(path, {"n": 2, "size": "1280x720"}, authorization=f"Bearer {KEY}"))
        stream = self.post(path, {"stream": True, "partial_images": 1}).text
        assert "image_generation.partial_image" in stream

    @pytest.mark.parametrize(
        ("path", "body", "status", "code"),
        [
            ("generations", {"model": "gpt-image-2"}, 404, "DeploymentNotFound"),
            ("generations?api-version=2024-01-01", {"model": "pictures"}, 400, "BadRequest"),
            ("generations", {"model": "pictures", "output_format": "webp"}, 400, "invalid_value"),
            ("generations", {"model": "pictures", "response_format": "url"}, 400, "unknown_parameter"),
            ("generations", {"model": "pictures", "prompt": "forbidden"}, 400, "contentFilter"),
            ("generations", {"model": "pictures", "prompt": "gruesome"}, 400, "contentFilter"),
            ("variations", {"model": "pictures"}, 404, "404"),
            ("edits", {"model": "pictures"}, 400, "unsupported_content_type"),
        ],
    )
    def test_refusals(self, path: str, body: dict[str, Any], status: int, code: str) -> None:
        """Filtered pictures have a `created` beside the error."""
        response = self.post(self.V1 + path, body)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert ("created" in response.json()) == (code == "contentFilter")

    def test_keys_and_versions(self) -> None:
        """A key in `api-key`; the deployments form needs a version."""
        assert self.post(f"{self.V1}generations", {"model": "pictures"}, api_key="wrong").status_code == 401
        assert self.post(f"{self.BY_PATH}generations", {}).json()["error"]["code"] == "404"

    def test_edits(self) -> None:
        """Forms."""
        client = client_of(azure.create_app(), api_key=KEY)
        files = [("image[]", ("a.png", picture_file(), "image/png"))] * 2
        data = {"prompt": "a cat", "model": "old-pictures"}
        assert client.post(f"{self.V1}edits", data=data, files=files).status_code == 200
        assert client.post(f"{self.V1}edits", data=data).status_code == 400
