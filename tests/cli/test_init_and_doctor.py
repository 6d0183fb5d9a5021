"""A first configuration from the keys that are set, and what is told of a gateway that is not well."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.wire.faults import Upstream, says

from imagegate.cli import main
from imagegate.cli.init import configuration
from imagegate.config.loader import key_variable, parse_config
from imagegate.config.model_contracts import contracts_of, warnings_of
from imagegate.demo.servers import serving
from imagegate.errors import ConfigError
from imagegate.registry import has_address, installed

KEYS = {key_variable(name): "a-key" for name in installed() if has_address(name)}


@pytest.mark.parametrize(
    "environment",
    [{}, {"OPENAI_API_KEY": "k"}, KEYS, {**KEYS, "CLIENT_KEY": "c", "REDIS_URL": "redis://127.0.0.1:6379/0"}],
    ids=["none", "one", "all", "everything"],
)
def test_what_is_written_is_valid(environment: dict[str, str], tmp_path: Path) -> None:
    """With every key that is set, without a warning but for open doors, and with a route for what several have."""
    source = configuration(environment)
    if not environment:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
            parse_config(source, environment={}, directory=tmp_path)
        return
    config = parse_config(source, environment=environment, directory=tmp_path)
    assert {key_variable(upstream.name) for upstream in config.upstreams} == set(environment) & set(KEYS)
    warnings = [each for each in warnings_of(config, contracts_of(config)) if "access.keys" not in each]
    assert warnings == []
    assert bool(config.access.keys) == ("CLIENT_KEY" in environment)
    assert config.tasks.store == environment.get("REDIS_URL", "memory://")
    if len(environment) > 1:
        candidates = config.routes["gpt-image-2"]
        assert "openai/gpt-image-2" in candidates and len(candidates) > 2
        assert "openai/dall-e-3" not in config.routes.get("dall-e-3", ())


def test_a_file_that_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    file = tmp_path / "imagegate.toml"
    file.write_text("# mine\n")
    assert main(["init", str(file)]) == 1
    assert "is there already; --force replaces it" in capsys.readouterr().err
    assert file.read_text() == "# mine\n"
    assert main(["init", str(file), "--force"]) == 0
    assert tomllib.loads(file.read_text())["upstreams"]
    assert main(["init", str(tmp_path / "no" / "folder.toml")]) == 1


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Takes one key."""

    async def models(request: Request) -> JSONResponse:
        right = request.headers["authorization"] == "Bearer right"
        return JSONResponse({"data": []}, 200 if right else 401)

    with serving(Starlette(routes=[Route("/v1/models", models)])) as port:
        yield f"http://127.0.0.1:{port}"


def doctor(file: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    file.write_text(text)
    code = main(["doctor", "--config", str(file)])
    return code, capsys.readouterr().out


@pytest.fixture(autouse=True)
def no_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command names the file in the environment, for the processes that it would start."""
    monkeypatch.setenv("IMAGEGATE_CONFIG", "")


@pytest.mark.server
def test_a_gateway_that_is_well(provider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(
        tmp_path / "c.toml",
        f'[[upstreams]]\nname = "openai"\nbase_url = "{provider}"\napi_key = "right"\n'
        '[access]\nkeys = ["k"]\n[limits]\nspool = 67108864\n',
        capsys,
    )
    assert code == 0, told
    assert "ok    upstreams.openai: takes the key." in told
    assert "BAD" not in told and "0 bad" in told


@pytest.mark.server
def test_what_is_amiss_is_told_with_what_to_do(
    provider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no directory")
    ahead = Upstream({"ahead": says(200, {"data": []}, "date: Sun, 29 Nov 2099 14:00:00 GMT")})
    with ahead.running() as port:
        code, told = doctor(
            tmp_path / "c.toml",
            f'[[upstreams]]\nname = "openai"\nbase_url = "{provider}"\napi_key = "wrong"\n'
            f'[[upstreams]]\nname = "tokenlab"\nbase_url = "http://127.0.0.1:{port}/ahead"\napi_key = "right"\n'
            '[[upstreams]]\nname = "onetoken"\nbase_url = "http://127.0.0.1:9"\napi_key = "k"\n'
            f'[delivery]\nstore = "file://{tmp_path / "file"}"\n[tasks]\nstore = "redis://127.0.0.1:9/0"\n'
            "[limits]\nspool = 1000000000000000\nconnections = 4000000000\n",
            capsys,
        )
    assert code == 1
    lines = told.splitlines()
    for start in (
        "BAD   upstreams.openai: refuses the key (401).",
        "BAD   upstreams.onetoken: cannot be used: ",
        "BAD   delivery.store: cannot be used: ",
        "BAD   Redis: cannot be used: ",
        "WARN  clock: this machine's is ",
        "WARN  limits.spool: ",
        "WARN  descriptors: ",
    ):
        place = next((place for place, line in enumerate(lines) if line.startswith(start)), None)
        assert place is not None, (start, told)
        assert lines[place + 1].startswith("      -> "), start


def test_a_file_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(tmp_path / "c.toml", "[limts]\n", capsys)
    assert code == 1
    assert "BAD   configuration: " in told and "limits" in told and "imagegate init" in told
