"""The files in `deploy/` and the forge's are what their linters want, and fit to each other and to the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.ports import free_port

import imagegate
from imagegate import Config, load_config
from imagegate.cli.commands import _parser

pytestmark = pytest.mark.server

ROOT: Final = Path(imagegate.__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
BIN: Final = Path(sys.executable).parent
ENVIRONMENT: Final = {
    "OPENAI_API_KEY": "key",
    "CLIENT_KEY": "client-key",
    "LINK_SECRET": "0123456789abcdef",
    "S3_ACCESS_KEY_ID": "imagegate",
    "S3_SECRET_ACCESS_KEY": "secret",
}


def run(*command: str | Path, **more: Any) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_dockerfile_is_what_hadolint_wants() -> None:
    run(BIN / "hadolint", DEPLOY / "Dockerfile")


def test_the_compose_file_fits_its_specification() -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    assert set(document["services"]) == {"grafana", "imagegate", "prometheus", "redis", "s3"}
    for service in document["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in document["volumes"], volume


def test_the_manifests_fit_their_schemas() -> None:
    run(BIN / "kubernetes-validate", DEPLOY / "kubernetes" / "imagegate.yaml")


@pytest.mark.parametrize("name", ["test.yml", "release.yml"])
def test_the_workflows_are_sound(name: str) -> None:
    file = ROOT / ".github" / "workflows" / name
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", file)
    run(BIN / "zizmor", "--offline", "--no-progress", file)
    actions = re.findall(r"uses: (\S+)", file.read_text("utf-8"))
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), f"{action} may change"


@pytest.mark.parametrize("name", ["bug.yml", "provider.yml"])
def test_the_issue_templates_have_what_a_form_needs(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text("utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_configuration_of_several_processes_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    config = load_config(DEPLOY / "imagegate.toml")
    assert (config.delivery.store, config.tasks.store) == ("s3://images/gateway", "redis://redis:6379/0")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    assert set(ENVIRONMENT) == set(compose["services"]["imagegate"]["environment"])


@pytest.mark.systemd
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_what_systemd_wants(tmp_path: Path) -> None:
    """Its settings are known and consistent, and it exposes little; the program is one that is there."""
    unit = (DEPLOY / "systemd" / "imagegate.service").read_text("utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *words = shlex.split(command)
    assert program == "/opt/imagegate/bin/imagegate"
    assert _parser().parse_args(words).grace == 60
    file = tmp_path / "imagegate.service"
    check, hang_up = re.findall(r"^ExecReload=(.*)$", unit, re.MULTILINE)
    assert _parser().parse_args(shlex.split(check)[1:]).file
    assert hang_up == "/bin/kill -HUP $MAINPID"
    file.write_text(unit.replace(program, str(BIN / "imagegate")))
    assert run("systemd-analyze", "verify", file) == ""
    report = run("systemd-analyze", "security", "--offline=true", "--threshold=20", file)
    assert "Overall exposure level" in report


def test_limits_that_files_name_are_those_of_the_code() -> None:
    """Comments of nginx's file name the limit that a value goes with."""
    limits = Config().limits
    text = (DEPLOY / "nginx" / "imagegate.conf").read_text("utf-8")
    named = {name: value for value, name in re.findall(r"(\d+)[ms];\s+# limits\.(\w+)\n", text)}
    assert named == {
        "form": str(limits.form // 1024**2),
        "head_timeout": f"{limits.head_timeout:g}",
        "client_stall": f"{limits.client_stall:g}",
    }


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order: its name and its arguments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_the_steps_of_the_image_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but users and layers: the build's commands, then the entry point and the health check, below another root."""
    monkeypatch.setenv("PIP_NO_COMPILE", "1")  # which would take half of the time

    def here(text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|src|var/lib)\b", rf"{tmp_path}/\1", text)

    (tmp_path / "src").mkdir()
    environment = {**os.environ, "OPENAI_API_KEY": "key"}
    folder, entry, health, stages = tmp_path, [], [], 0
    for name, rest in instructions():
        match name:
            case "FROM":
                stages += 1
            case "WORKDIR":
                folder = Path(here(rest))
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY" if not rest.startswith("--from=build"):
                *sources, target = rest.split()
                for source in sources:
                    if (ROOT / source).is_dir():
                        shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                    else:
                        shutil.copy(ROOT / source, folder / target)
            case "COPY":
                assert rest == "--from=build /opt/imagegate /opt/imagegate"
            case "RUN" if "useradd" not in rest:
                interpreter = rest.replace("python -m venv", f"{sys.executable} -m venv")
                run("sh", "-c", here(interpreter), cwd=folder)
            case "ENV":
                environment |= dict(pair.split("=", 1) for pair in shlex.split(here(rest)))
            case "ENTRYPOINT":
                entry = json.loads(rest)
            case "HEALTHCHECK":
                health = json.loads(rest.partition("CMD ")[2])
    assert stages == 2
    run(sys.executable, "-m", "pip", "--python", tmp_path / "opt" / "imagegate" / "bin" / "python", "check")
    environment["PATH"] = f"{tmp_path}/opt/imagegate/bin:/usr/bin:/bin"
    port = free_port()
    server = subprocess.Popen(
        [f"{tmp_path}/opt/imagegate/bin/{entry[0]}", *entry[1:-1], "127.0.0.1", "--port", str(port)],
        env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        probe = [f"{tmp_path}/opt/imagegate/bin/{health[0]}", *(word.replace("8000", str(port)) for word in health[1:])]
        deadline = time.monotonic() + 30
        while subprocess.run(probe, capture_output=True).returncode:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as reply:
            assert any(model["id"] == "gpt-image-2" for model in json.load(reply)["data"])
    finally:
        server.terminate()
        _, errors = server.communicate()
    assert server.returncode == 0, errors
    assert not (tmp_path / "opt" / "imagegate" / "bin" / "pip").exists()
