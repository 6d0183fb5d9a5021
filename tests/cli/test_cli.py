"""The command line, in this process: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from imagegate import __version__
from imagegate.cli.commands import main
from imagegate.registry import installed

CONFIG = """\
[[upstreams]]
name = "tokenlab"
base_url = "http://127.0.0.1:9/v1"
api_key = "${LAB_KEY}"

[[upstreams]]
name = "onetoken"
base_url = "http://127.0.0.1:9"
api_key = "sk-very-secret-key"

[routes]
"gpt-image-2" = ["tokenlab/gpt-image-2", "onetoken/gpt-image-2"]
"own" = "tokenlab/flux-pro"

[access]
keys = ["client-key"]
"""
ASKED = {"model": "onetoken/gpt-image-2", "prompt": "A kite", "size": "512x512", "response_format": "url"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and no key of any provider."""
    for name in (*(f"{name.upper()}_API_KEY" for name in installed()), "IMAGEGATE_CONFIG", "IMAGEGATE_LOG"):
        monkeypatch.setenv(name, "")  # so that what the commands set is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAB_KEY", "sk-lab-key")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Path:
    file = folder / "gate.toml"
    file.write_text(CONFIG)
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# check


def test_check_of_a_good_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good file is called good, with what is in it."""
    code, out, err = run(capsys, "check", str(config))
    assert (code, err) == (0, "")
    assert out.startswith(f"{config}: good. Upstreams: 2, models: ")
    assert out.endswith(", routes: 2.\n")


def test_check_warns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What works but may not be meant is warned of, and is no failure."""
    document = '[[upstreams]]\nname = "openai"\napi_key = "k"\n[delivery]\nstore = "memory://"\n'
    (folder / "open.toml").write_text(f'{document}public_url = "http://localhost/images"\n')
    code, out, _ = run(capsys, "check", "open.toml")
    warnings = [line.partition(" ")[2].split(":")[0] for line in out.splitlines()[1:]]
    assert (code, 3) == (0, len(warnings))
    assert "access.keys is not set" in warnings[0]
    assert warnings[1:] == ["delivery.store", "delivery.public_url is on loopback"]


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        ('name = "tokenlab"', 'nane = "tokenlab"', "gate.toml:2: upstreams[0].nane: unknown key 'nane'"),
        ('name = "onetoken"', 'name = "tokenlab"', "gate.toml:7: upstreams[1].name: there are two upstreams called"),
        ("${LAB_KEY}", "${NO_SUCH}", "gate.toml:4: upstreams[0].api_key: the environment variable NO_SUCH"),
        ('api_key = "sk-very-secret-key"', 'api_key = ""', "gate.toml:9: upstreams[1].api_key: is empty"),
        ('api_key = "sk-very-secret-key"', "", "gate.toml:7: upstreams[1].name: access.keys is set"),
        ('"tokenlab/flux-pro"', '"nobody/flux-pro"', "gate.toml:15: routes.own: 'nobody/flux-pro' must be"),
        ('"tokenlab/flux-pro"', "5", "gate.toml:13: routes.own: Expected `array`"),
        ("http://127.0.0.1:9/v1", "ftp://x", "gate.toml:3: upstreams[0].base_url: must be http:// or"),
        ("[access]", "[acess]", "gate.toml:15: acess: unknown key 'acess'"),
        ("[access]", "[policy]\ntolerance = -1\n[access]", "gate.toml:16: policy.tolerance: must not be negative"),
        ("[access]", '[tasks]\ndeadline = "soon"\n[access]', "gate.toml:16: tasks.deadline: 'soon' is no duration"),
        ("[access]", "[access", "gate.toml: "),
    ],
)
def test_check_names_the_mistake(
    config: Path, capsys: pytest.CaptureFixture[str], changed: str, to: str, message: str
) -> None:
    """A mistake is named with its line and key on standard error, and the code is 1."""
    assert changed in CONFIG
    config.write_text(CONFIG.replace(changed, to))
    code, out, err = run(capsys, "check", "gate.toml")
    assert (code, out) == (1, "")
    assert err.startswith(f"imagegate: {message}"), err
    assert err.count("\n") == 1
    assert "secret" not in err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_check_of_what_is_no_file(folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    """A file that is not there, or is no text, is an error in one line."""
    if content is not None:
        (folder / "bad.toml").write_bytes(content)
    code, _, err = run(capsys, "check", "bad.toml")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("imagegate: bad.toml: ")


# models


def test_models(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every model has a line with its size rule and who answers for it, routes first."""
    code, out, _ = run(capsys, "models", "--config", str(config))
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["gpt-image-2", "size:", "flexible", "tokenlab/gpt-image-2,", "onetoken/gpt-image-2"]
    assert lines[1] == ["own", "size:", "any", "tokenlab/flux-pro"]
    assert ["nano-banana", "size:", "ratio", "tokenlab/nano-banana"] in lines


def test_prices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours say so, with date and source; the operator's own win; what nobody knows is not invented."""
    file = folder / "priced.toml"
    file.write_text(
        '[[upstreams]]\nname = "o"\nadapter = "openai"\napi_key = "k"\n'
        '[[upstreams]]\nname = "p"\nadapter = "openai"\napi_key = "k"\n'
        '[upstreams.models.unpriced]\nparameters = { prompt = {} }\n[prices.models]\n"gpt-image-1.5" = '
        '{ image = 0.5, variants = [{ when = { quality = ["high", "auto"] }, image = 1 }] }\n'
    )
    code, out, _ = run(capsys, "prices", "--config", str(file))
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert code == 0
    assert lines["o/gpt-image-1.5"].strip() == (
        "USD 0.5 an image; 1 an image where quality is high or auto; at most 1 an image (yours)"
    )
    assert "output_image 30" in lines["o/gpt-image-2"]
    assert "(ours, 2026-06-05, https://" in lines["o/gpt-image-2"]
    assert lines["p/unpriced"].strip() == "no price is known: nothing says what it costs"
    code, out, _ = run(capsys, "prices", "--config", str(file), "--json")
    listed = {entry["model"]: entry for entry in json.loads(out)}
    assert (code, listed["gpt-image-2"]["from"], listed["unpriced"]["from"]) == (0, "adapter", "")
    assert listed["gpt-image-1.5"]["most_per_image"] == 1


def test_prices_by_size_and_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every unit has its words, and the bound is that of the model's contract."""
    file = folder / "units.toml"
    file.write_text(
        '[[upstreams]]\nname = "bfl"\napi_key = "k"\n[prices.models]\n'
        '"flux-2-pro" = { image = 0.015, megapixel = 0.015, megapixel_pixels = 1048576, round_up = true, '
        "reference_megapixel = 0.02, reference_image = 0.001 }\n"
        '"flux-2-flex" = { step = 0.001, steps = 28, variants = [{ when = { guidance = [1] }, image = 0 }] }\n'
        '"flux-kontext-pro" = { megapixel_step = 0.5, steps = 2 }\n"flux-dev" = { usage_cost = "cost" }\n'
        '"flux-pro-1.1" = { image = 0 }\n'
    )
    _, out, _ = run(capsys, "prices", "--config", str(file))
    lines = {name: text.strip() for name, text in (line.split("  ", 1) for line in out.splitlines())}
    assert lines["bfl/flux-2-pro"] == (
        "USD 0.015 an image and 0.015 a megapixel; references: 0.001 a piece and 0.02 a megapixel; a megapixel is "
        "1048576 pixels; parts of a megapixel count as whole ones; at most 0.075 an image (yours)"
    )
    assert lines["bfl/flux-2-flex"] == (
        "USD 0.001 a step; 0 an image where guidance is 1; 28 steps where none are named; at most 0.05 an image (yours)"
    )
    assert lines["bfl/flux-kontext-pro"] == (
        "USD 0.5 a step of a megapixel; 2 steps where none are named; at most: not known (yours)"
    )
    assert lines["bfl/flux-dev"] == "USD as the reply says in usage.cost; at most: not known (yours)"
    assert lines["bfl/flux-pro-1.1"] == "free of charge (yours)"


def test_providers_without_prices_say_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that has a single contract for whatever model is asked for; and single models of others."""
    file = folder / "unpriced.toml"
    file.write_text(
        '[[upstreams]]\nname = "huggingface"\napi_key = "k"\n[[upstreams]]\nname = "deepinfra"\napi_key = "k"\n'
        '[[upstreams]]\nname = "fal"\napi_key = "k"\n'
        '[[upstreams]]\nname = "relay"\nadapter = "fal"\napi_key = "k"\nbase_url = "https://relay.example"\n'
    )
    _, out, _ = run(capsys, "prices", "--config", str(file))
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    for name, reason in {
        "huggingface/*": "they are those of the provider that answers",
        "deepinfra/black-forest-labs/FLUX-2-max": "it is 0.07 USD at the usual size",
        "fal/*": "a model without a contract has a price of its own",
        "relay/fal-ai/flux/dev": "the address is not the provider's own",
    }.items():
        assert f"no price is known: {reason}" in lines[name]
    assert "no price is known" not in lines["fal/fal-ai/flux/dev"]


def test_models_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints what ``GET /v1/models`` answers."""
    code, out, _ = run(capsys, "models", "--json", "--config", str(config))
    document = json.loads(out)
    assert (code, document["object"]) == (0, "list")
    assert {"id", "object", "created", "owned_by", "upstreams", "contract"} == set(document["data"][0])
    assert "key" not in out


# explain


def explained(capsys: pytest.CaptureFixture[str], request: str) -> dict[str, Any]:
    code, out, err = run(capsys, "explain", "--config", "gate.toml", request)
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_explain(
    config: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A request from wherever is shown as it would be sent, without keys; nothing is sent, and nothing is written."""
    (folder / "request.json").write_text(json.dumps(ASKED))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(ASKED)))
    document = explained(capsys, {"argument": json.dumps(ASKED), "file": "request.json", "stdin": "-"}[source])
    assert document["url"] == "http://127.0.0.1:9/v1/images/generations/"
    assert document["body"] == {"model": "gpt-image-2", "prompt": "A kite", "size": "816x816"}
    assert [change["field"] for change in document["changes"]] == ["size", "response_format"]
    assert "secret" not in json.dumps(document)
    assert {"gate.toml", "request.json"} == {file.name for file in folder.iterdir()}


def test_explain_of_several_parts(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A request that becomes several shows the first of them and says how many there are."""
    config.write_text(CONFIG.replace("[routes]", '[upstreams.models."one"]\nparameters = { prompt = {} }\n\n[routes]'))
    document = explained(capsys, json.dumps({"model": "onetoken/one", "prompt": "A kite", "n": 2}))
    assert document["body"] == {"model": "one", "prompt": "A kite"}
    assert document["changes"] == [{"field": "n", "kind": "mapped", "from": 2, "to": "1+1"}]


@pytest.mark.parametrize(
    ("request_text", "param"), [('{"model": "own"}', "prompt"), ('{"model": "x", "prompt": "p"}', "model"), ("{", None)]
)
def test_explain_of_a_refused_request(
    config: Path, capsys: pytest.CaptureFixture[str], request_text: str, param: str | None
) -> None:
    """A request that would be refused shows the error, and the code is 1."""
    code, out, _ = run(capsys, "explain", "--config", "gate.toml", request_text)
    assert (code, param) == (1, json.loads(out)["error"]["param"])


@pytest.mark.parametrize("source", ["missing.json", "folder", "x" * 5000])
def test_explain_of_what_cannot_be_read(
    config: Path, folder: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    """A file that is not there is an error, not a traceback."""
    (folder / "folder").mkdir()
    code, out, err = run(capsys, "explain", "--config", "gate.toml", source)
    assert (code, out) == (1, "")
    assert err.startswith("imagegate: ")


# Where the configuration comes from


def test_configuration_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file every provider whose key is set is on."""
    monkeypatch.setenv("TOAPIS_API_KEY", "k")
    code, out, _ = run(capsys, "models", "--json")
    assert (code, {"toapis"}) == (0, {model["owned_by"] for model in json.loads(out)["data"]})


def test_configuration_beside(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the usual name in the current folder is used without being named."""
    config.rename(config.parent / "imagegate.toml")
    code, out, _ = run(capsys, "models")
    assert (code, out.splitlines()[1].split()[0]) == (0, "own")


def test_configuration_by_variable(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IMAGEGATE_CONFIG names the file, and ``--config`` beats it."""
    monkeypatch.setenv("IMAGEGATE_CONFIG", str(config))
    assert run(capsys, "models")[0] == 0
    code, _, err = run(capsys, "models", "--config", "other.toml")
    assert code == 1
    assert "other.toml" in err


@pytest.mark.parametrize("command", [["models"], ["explain", "{}"], ["serve"]])
def test_no_configuration_at_all(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Without a file and without a key the error names the variables that would do."""
    code, _, err = run(capsys, *command)
    assert code == 1
    assert err.startswith("imagegate: There is no configuration file, and no key of a provider is set. ")
    assert " GEMINI_API_KEY, " in err


# serve


def test_serve_refuses_workers_without_a_common_store(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several workers with pictures in memory would lose links, so they are refused before anything starts."""
    config.write_text(f'{CONFIG}\n[delivery]\nstore = "memory://"\n')
    code, _, err = run(capsys, "serve", "--config", str(config), "--workers", "2")
    assert code == 1
    assert "delivery.store: memory:// is not shared" in err


def test_serve_passes_its_options_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host, port and workers reach the server; the file reaches workers by the environment, as a whole path."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **options: seen.update(options, app=app))
    arguments = ["serve", "--config", "gate.toml", "--host", "0.0.0.0", "--port", "81", "--workers", "3"]
    assert run(capsys, *arguments)[0] == 0
    expected = {"app": "imagegate.server.run:create_app", "factory": True, "host": "0.0.0.0", "port": 81, "workers": 3}
    assert expected == {name: seen[name] for name in expected}
    assert str(config) == os.environ["IMAGEGATE_CONFIG"]


# Words


@pytest.mark.parametrize(
    "arguments", [[], ["paint"], ["check"], ["serve", "--port", "x"], ["explain"], ["models", "x"]]
)
def test_wrong_words(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Wrong words are told on standard error with code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: imagegate" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["demo", "--help"], ["explain", "-h"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Every command explains itself."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: imagegate" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the package's."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"imagegate {__version__}\n"


def test_interrupted(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is code 130, as shells have it, and no traceback."""

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.run", interrupt)
    assert run(capsys, "serve", "--config", "gate.toml")[0] == 130


def test_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m imagegate`` is the same program."""
    monkeypatch.setattr(sys, "argv", ["imagegate", "check", "missing.toml"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("imagegate", run_name="__main__")
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--port", "99999"], "'99999' is no port; ports go from 0 to 65535"),
        (["serve", "--port", "-1"], "'-1' is no port"),
        (["demo", "--port", "http"], "'http' is no port"),
        (["serve", "--workers", "0"], "'0' is no number of processes"),
        (["serve", "--workers", "two"], "'two' is no number of processes"),
    ],
)
def test_numbers_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """99999 would have been served, on the port that is left of it after 65536."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
