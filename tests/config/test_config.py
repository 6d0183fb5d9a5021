"""The configuration: what a file may say, errors that say where, and what there is without a file."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate import registry
from imagegate.config import checks
from imagegate.config import loader as config_module
from imagegate.config.loader import default_config, load_config, parse_config
from imagegate.config.model_contracts import base_url_of, contracts_of, warnings_of
from imagegate.config.routes import Choice
from imagegate.config.schema import (
    AccessConfig,
    Config,
    DeliveryConfig,
    Duration,
    LimitsConfig,
    PolicyConfig,
    TasksConfig,
    UpstreamConfig,
)
from imagegate.config.toml_lines import line_of
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.sizes import ListRule
from imagegate.errors import ConfigError
from imagegate.routing.catalog import find_contract

UPSTREAM = '[[upstreams]]\nname = "openai"\n'


def parse(source: str, directory: Path | None = None, **environment: str) -> Config:
    return parse_config(source, environment=environment, directory=directory)


# What a file may say


def test_a_small_file_has_defaults_for_everything_else():
    """One upstream with a name is a configuration."""
    config = parse(UPSTREAM)
    expected = Config(
        prefix="/v1",
        upstreams=(UpstreamConfig(name="openai"),),
        routes={},
        delivery=DeliveryConfig(store="file://./images", public_url="", link_ttl=Duration(86_400)),
        tasks=TasksConfig(store="memory://", poll_interval=Duration(2), deadline=Duration(300)),
        policy=PolicyConfig(fit="nearest", tolerance=0.5),
        access=AccessConfig(keys=()),
        limits=LimitsConfig(json_body=32 * 1024**2, prompt=32_000, images=10, in_flight=2000),
    )
    assert expected == config


def test_a_whole_file_is_read():
    """Every documented section and key arrives where it belongs."""
    config = parse(
        """
        prefix = "/images/v1"

        [[upstreams]]
        name = "lab"
        adapter = "tokenlab"
        base_url = "https://lab.example/v1"
        api_key = "${LAB_KEY}"
        connect_timeout = "3s"
        read_timeout = 600
        max_in_flight = 8
        requests_per_minute = 90

        [[upstreams]]
        name = "onetoken"
        api_key = "sk-two"

        [routes]
        "gpt-image-2" = ["lab/gpt-image-2", "onetoken/gpt-image-2"]
        hats = "lab/nano-banana"
        shared = [{ to = "lab/gpt-image-2", weight = 3 }, { to = "onetoken/gpt-image-2" }, "lab/nano-banana"]

        [delivery]
        store = "memory://"
        public_url = "https://cdn.example/images"
        link_ttl = "1.5h"
        link_secret = "${SECRET}"
        default = "b64_json"
        fetch_allow = ["10.0.0.0/8"]

        [tasks]
        poll_interval = "500ms"
        deadline = "5m"

        [policy]
        fit = "strict"
        tolerance = 0.1
        retries = 0
        backoff = "100ms"
        longest_wait = 5
        queue_timeout = "1m"
        fall_back_on = [402, 403]
        breaker_failures = 0
        breaker_pause = "2m"
        deadline = "90s"

        [access]
        keys = ["${CLIENT_KEY}", "sk-${CLIENT_KEY}-b"]

        [limits]
        images = 4
        """,
        LAB_KEY="sk-lab",
        SECRET="s3cr3t-of-the-links",
        CLIENT_KEY="sk-client",
    )
    lab, onetoken = config.upstreams
    assert (
        lab.name,
        lab.adapter_name,
        base_url_of(lab),
        lab.api_key,
        lab.connect_timeout,
        lab.read_timeout,
    ) == ("lab", "tokenlab", "https://lab.example/v1", "sk-lab", 3.0, 600.0)
    assert (
        onetoken.adapter_name,
        base_url_of(onetoken),
        onetoken.api_key,
    ) == ("onetoken", "https://api.onetoken.one", "sk-two")
    assert (lab.max_in_flight, lab.requests_per_minute, onetoken.max_in_flight) == (8, 90, None)
    routes = {
        "gpt-image-2": ("lab/gpt-image-2", "onetoken/gpt-image-2"),
        "hats": ("lab/nano-banana",),
        "shared": (Choice(to="lab/gpt-image-2", weight=3), Choice(to="onetoken/gpt-image-2"), "lab/nano-banana"),
    }
    assert (routes, "/images/v1") == (config.routes, config.prefix)
    delivery = DeliveryConfig(
        store="memory://",
        public_url="https://cdn.example/images",
        link_ttl=Duration(5400),
        link_secret="s3cr3t-of-the-links",
        default="b64_json",
        fetch_allow=("10.0.0.0/8",),
    )
    assert delivery == config.delivery
    assert TasksConfig(poll_interval=Duration(0.5), deadline=Duration(300)) == config.tasks
    policy = PolicyConfig(
        fit="strict",
        tolerance=0.1,
        retries=0,
        backoff=Duration(0.1),
        longest_wait=Duration(5),
        queue_timeout=Duration(60),
        fall_back_on=(402, 403),
        breaker_failures=0,
        breaker_pause=Duration(120),
        deadline=Duration(90),
    )
    assert policy == config.policy
    assert (config.access.keys, config.limits.images) == (("sk-client", "sk-sk-client-b"), 4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('"50ms"', 0.05),
        ('"2s"', 2),
        ('"1.5s"', 1.5),
        ('" 2s "', 2),
        ('"5m"', 300),
        ('"24h"', 86_400),
        ('"7d"', 604_800),
        ("5", 5),
        ("0.25", 0.25),
    ],
)
def test_durations_are_text_or_seconds(text, seconds):
    """A number counts seconds, text says its unit."""
    assert seconds == parse(f"{UPSTREAM}[tasks]\ndeadline = {text}").tasks.deadline


@pytest.mark.parametrize(
    "text",
    ['"5"', '"s"', '""', '"0s"', '"-1s"', '"1w"', '"1 h"', '"1e3s"', '"٣s"', "0", "-1", "true", "nan", "inf", "[1]"],
)
def test_what_is_no_duration_is_refused(text):
    """Nothing waits for ever, for no time, or for a time that has to be guessed."""
    with pytest.raises(ConfigError, match=r"^tasks\.deadline: ") as caught:
        parse(f"{UPSTREAM}[tasks]\ndeadline = {text}")
    assert "write for example '2s', '5m' or '24h'" in str(caught.value)


@pytest.mark.parametrize(("text", "tolerance"), [("0", 0.0), ("0.0", 0.0), ("2", 2.0)])
def test_a_tolerance_of_nothing_is_one(text, tolerance):
    """Zero refuses every move of a ratio, which somebody may want."""
    assert tolerance == parse(f"{UPSTREAM}[policy]\ntolerance = {text}").policy.tolerance


# Variables


def test_variables_are_replaced_wherever_text_stands():
    """Names in braces are the environment's; everything else with a dollar is text."""
    source = UPSTREAM + 'api_key = "${A}${B_2}-$A-$${A}-{A}"\n[routes]\nm = "openai/${M}"'
    config = parse(source, A="one", B_2="two", M="gpt-image-2")
    assert config.upstreams[0].api_key == "onetwo-$A-$one-{A}"
    assert config.routes == {"m": ("openai/gpt-image-2",)}


def test_a_value_of_the_environment_is_not_expanded_again():
    """A key that looks like a variable is a key."""
    assert parse(UPSTREAM + 'api_key = "${A}"', A="${B}").upstreams[0].api_key == "${B}"


def test_the_process_environment_is_the_default(monkeypatch):
    """Without another environment that of the process counts."""
    monkeypatch.setenv("IMAGEGATE_TEST_KEY", "sk-env")
    assert parse_config(UPSTREAM + 'api_key = "${IMAGEGATE_TEST_KEY}"').upstreams[0].api_key == "sk-env"


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (UPSTREAM + 'api_key = "${NOPE}"', "api_key"),
        (UPSTREAM + '[access]\nkeys = ["sk-1", "${NOPE}"]', "keys"),
        (UPSTREAM + '[routes]\nm = ["${NOPE}/x"]', "m"),
        (UPSTREAM + '[delivery]\nstore = "file://${NOPE}"', "store"),
    ],
)
def test_a_variable_that_is_not_set_is_an_error_that_names_both(source, key):
    """The message names the variable and the key that wants it."""
    with pytest.raises(ConfigError, match="the environment variable NOPE is not set") as caught:
        parse(source)
    assert key in str(caught.value).partition(":")[0]


# Errors

ERRORS = [
    # the file, the line and what the message says
    ('[[upstreams]]\nname = "openai"\nname2 = "x"', 3, "upstreams[0].name2: unknown key 'name2'"),
    ('nonsense = 1\n[[upstreams]]\nname = "openai"', 1, "nonsense: unknown key 'nonsense'"),
    ('[[upstreams]]\nname = "openai"\n\n[polices]\nfit = "strict"', 4, "polices: unknown key 'polices'"),
    ('[[upstreams]]\nname = "openai"\n[policy]\n# how\nfit = "exact"', 5, "policy.fit: Invalid enum value 'exact'"),
    (
        '[[upstreams]]\nname = "openai"\n[policy]\ntolerance = "half"',
        4,
        "policy.tolerance: Expected `float`, got `str`",
    ),
    ('[[upstreams]]\nname = "openai"\n[policy]\ntolerance = -0.5', 4, "policy.tolerance: must not be negative"),
    ('[[upstreams]]\nname = "openai"\n[policy]\ntolerance = nan', 4, "policy.tolerance: "),
    ('[[upstreams]]\nname = "openai"\n[limits]\nimages = "x"', 4, "limits.images: Expected `int`, got `str`"),
    ('[[upstreams]]\nname = "openai"\n[tasks]\ndeadline = "soon"', 4, "tasks.deadline: 'soon' is no duration"),
    ('[[upstreams]]\nname = "openai"\nread_timeout = 0', 3, "upstreams[0].read_timeout: 0 is no duration"),
    ("[[upstreams]]\nname = 5", 2, "upstreams[0].name: Expected `str`, got `int`"),
    ('[[upstreams]]\nadapter = "openai"', 1, "upstreams[0]: Object missing required field `name`"),
    ('[[upstreams]]\nname = "a/b"', 2, "upstreams[0].name: 'a/b' must be letters, digits, '.', '_' and '-'"),
    ('[[upstreams]]\nname = ""', 2, "upstreams[0].name: '' must be letters"),
    ('[[upstreams]]\nname = "openai"\n[[upstreams]]\nname = "openai"', 4, "there are two upstreams called 'openai'"),
    (
        '[[upstreams]]\nname = "tokenlabs"',
        2,
        "upstreams[0].name: There is no adapter 'tokenlabs'. Did you mean 'tokenlab'?",
    ),
    ('[[upstreams]]\nname = "x"\nadapter = "y"', 3, "upstreams[0].adapter: There is no adapter 'y'."),
    ('[[upstreams]]\nname = "openai"\nbase_url = "api.example"', 3, "upstreams[0].base_url: must be http"),
    ('[[upstreams]]\nname = "openai"\nbase_url = "ftp://a.example"', 3, "upstreams[0].base_url: "),
    ('[[upstreams]]\nname = "openai"\nbase_url = "https://"', 3, "upstreams[0].base_url: "),
    ('[[upstreams]]\nname = "openai"\nbase_url = "https://u:p@a.example"', 3, "upstreams[0].base_url: "),
    ('[[upstreams]]\nname = "openai"\napi_key = ""', 3, "upstreams[0].api_key: is empty; leave it out"),
    ('[[upstreams]]\nname = "openai"\napi_key = " "', 3, "upstreams[0].api_key: "),
    ('[[upstreams]]\nname = "openai"\napi_key = "sk-\\n1"', 3, "upstreams[0].api_key: has characters that no key has"),
    ('[[upstreams]]\nname = "openai"\nbase_url = "https://a.example:port"', 3, "upstreams[0].base_url: "),
    ('[[upstreams]]\nname = "openai"\nbase_url = "https://a.example/v1#x"', 3, "upstreams[0].base_url: "),
    ('[[upstreams]]\nname = "openai"\nbase_url = "https://a.example/v1/images"', 3, "leave out the '/images'"),
    (
        '[[upstreams]]\nname = "openai"\nbase_url = "https://a.example/v1/images/edits/?x=1"',
        3,
        "leave out the '/v1/images/edits' at its end",
    ),
    ('[[upstreams]]\nname = "openai"\nbase_url = "https://a.example/a b"', 3, "upstreams[0].base_url: "),
    ('[[upstreams]]\nname = "openai"\n[limits]\nprompt = 1\nimages = 0', 5, "limits.images: must be at least 1"),
    ('[[upstreams]]\nname = "openai"\n[access]\nkeys = ["k"]', 2, "upstreams[0].name: access.keys is set"),
    ('[[upstreams]]\nname = "openai"\n[access]\nkeys = "k"', 4, "access.keys: Expected `array`, got `str`"),
    ('[[upstreams]]\nname = "openai"\n[access]\nkeys = [5]', 4, "access.keys[0]: Expected `str`, got `int`"),
    ('prefix = "v1"\n[[upstreams]]\nname = "openai"', 1, "prefix: 'v1' is no path such as '/v1'"),
    ('prefix = "/v1/"\n[[upstreams]]\nname = "openai"', 1, "prefix: '/v1/' is no path"),
    (
        '[[upstreams]]\nname = "openai"\n[routes]\n"m" = ["m"]',
        4,
        "routes.m: 'm' must be 'upstream/model' with one of: openai",
    ),
    ('[[upstreams]]\nname = "openai"\n[routes]\nm = "other/m"', 4, "routes.m: 'other/m' must be 'upstream/model'"),
    ('[[upstreams]]\nname = "openai"\n[routes]\nm = "openai/"', 4, "routes.m: 'openai/' must be 'upstream/model'"),
    ('[[upstreams]]\nname = "openai"\n[routes]\na = "openai/a"\nm = []', 5, "routes.m: names no upstream"),
    ('[[upstreams]]\nname = "openai"\n[routes]\na = "openai/a"\nm = 5', 5, "routes.m: Expected `array`, got `int`"),
    ('[[upstreams]]\nname = "openai"\n[routes]\na = "openai/a"\nm = [5]', 5, "routes.m[0]: Expected `str`, got `int`"),
    (
        '[[upstreams]]\nname = "openai"\n[routes]\na = "openai/a"\nm = [{ too = "openai/m" }]',
        5,
        "routes.m[0].too: unknown key 'too'",
    ),
    (
        '[[upstreams]]\nname = "openai"\n[routes]\nm = [{ to = "openai/m", wait = 3 }]',
        4,
        "routes.m[0].wait: unknown key 'wait'",
    ),
    (
        '[[upstreams]]\nname = "openai"\n[routes]\nm = ["openai/m", { to = "openai/n", weight = 0 }]',
        4,
        "routes.m[1].weight: must be more than 0",
    ),
    (
        '[[upstreams]]\nname = "openai"\n[routes]\nm = [{ to = "openai/m", weight = "3" }]',
        4,
        "routes.m[0].weight: Expected `float`, got `str`",
    ),
    (
        '[[upstreams]]\nname = "openai"\n[routes]\nm = [{ to = "other/m", weight = 3 }]',
        4,
        "routes.m: 'other/m' must be 'upstream/model' with one of: openai",
    ),
    ('[[upstreams]]\nname = "openai"\n[policy]\nretries = -1', 4, "policy.retries: must be from 0 to 100"),
    ('[[upstreams]]\nname = "openai"\n[policy]\nbreaker_failures = 101', 4, "policy.breaker_failures: must be from 0"),
    (
        '[[upstreams]]\nname = "openai"\n[policy]\nfall_back_on = [402, 400]',
        4,
        "policy.fall_back_on: 400 is not from 401 to 499",
    ),
    ('[[upstreams]]\nname = "openai"\nmax_in_flight = 0', 3, "upstreams[0].max_in_flight: must be at least 1"),
    (
        '[[upstreams]]\nname = "openai"\nrequests_per_minute = -1',
        3,
        "upstreams[0].requests_per_minute: must be at least 1",
    ),
    ('routes = 5\n[[upstreams]]\nname = "openai"', 1, "routes: Expected `object`, got `int`"),
    ('routes = ["openai/x"]\n[[upstreams]]\nname = "openai"', 1, "routes: Expected `object`, got `array`"),
    ("upstreams = 5", 1, "upstreams: Expected `array`, got `int`"),
    ("upstreams = [5]", 1, "upstreams[0]: Expected `object`, got `int`"),
    (
        '[[upstreams]]\nname = "openai"\n[delivery]\nstore = "${NOPE}"',
        4,
        "store: the environment variable NOPE is not set",
    ),
    ('[[upstreams]]\nname = "openai"\n[delivery]\ndefault = "b64"', 4, "delivery.default: Invalid enum value 'b64'"),
    ('[[upstreams]]\nname = "openai"\ncontracts = "none.toml"', 3, "upstreams[0].contracts: "),
    (
        '[[upstreams]]\nname = "openai"\n[upstreams.models.m]\nfamily = "nope"',
        None,
        "upstreams[0].models: models.m.family: there is no family 'nope'",
    ),
    (
        '[[upstreams]]\nname = "openai"\n[upstreams.models.m]\nsize = { rule = "round" }',
        4,
        "upstreams[0].models.m.size.rule: Invalid value 'round'; allowed: ",
    ),
    (
        '[[upstreams]]\nname = "openai"\n[upstreams.models]\nm = 5',
        None,
        "upstreams[0].models.m: Expected `object`, got `int`",
    ),
    ('[[upstreams]]\nname = "openai"\n[upstreams.models.m]\nfamily = ["a"]', None, "upstreams[0].models: models.m"),
]


@pytest.mark.parametrize(("source", "line", "said"), ERRORS)
def test_an_error_names_the_file_the_line_and_the_key(tmp_path, source, line, said):
    """Whatever is wrong in a file, the operator is told where."""
    path = tmp_path / "imagegate.toml"
    path.write_text(source, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    message = str(caught.value)
    assert said in message
    assert message.startswith(f"{path}:{line}: " if line else f"{path}:")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "There must be at least one [[upstreams]]."),
        ("[policy]\nfit = 'pass'", "There must be at least one [[upstreams]]."),
        ("prefix = \n[policy]\n", "(at line 1, column 10)"),
        ('[[upstreams]]\nname = "openai"\nname = "x"\n', "(at line 3, column 11)"),
    ],
)
def test_files_that_say_nothing_or_no_toml(tmp_path, source, said):
    """An empty file has no upstream, and the TOML reader's own errors keep their line."""
    path = tmp_path / "imagegate.toml"
    path.write_text(source, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    """The message names the file and the system's reason."""
    with pytest.raises(ConfigError, match="No such file or directory"):
        load_config(tmp_path / "none.toml")


def test_a_file_that_is_no_text(tmp_path):
    """Files are UTF-8."""
    path = tmp_path / "imagegate.toml"
    path.write_bytes(b'prefix = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(path)


def test_every_upstream_needs_a_key_where_clients_have_keys_of_ours():
    """With `access.keys` the client's own key is ours, which must not go to a provider."""
    two = UPSTREAM + 'api_key = "sk-1"\n[[upstreams]]\nname = "toapis"\n{}\n[access]\nkeys = ["k"]'
    with pytest.raises(ConfigError, match=r"^upstreams\[1\]\.name: access\.keys is set"):
        parse(two.format(""))
    assert parse(two.format('api_key = "sk-2"')).access.keys == ("k",)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("", "", True),
        ('api_key = "k"', "", False),
        ("", 'api_key = "k"', False),
        ('base_url = "https://same.example"', 'base_url = "https://same.example/v1"', False),
    ],
)
def test_a_clients_key_goes_to_one_provider(first, second, refused):
    """A route over several upstreams without a key of their own would show the client's key to all of them."""
    upstreams = [("openai", first), ("toapis", second)]
    source = "".join(f'[[upstreams]]\nname = "{name}"\n{rest}\n' for name, rest in upstreams)
    source += '[routes]\nm = ["openai/a", "toapis/b"]'
    if not refused:
        assert list(parse(source).routes) == ["m"]
        return
    with pytest.raises(ConfigError, match=r"^routes\.m: at most one of its upstreams can be without an api_key"):
        parse(source)


def test_variables_lose_the_line_end_that_files_of_secrets_have():
    """White space around a value of the environment is no part of it."""
    assert parse(UPSTREAM + 'api_key = "${A}"', A=" sk-1\n").upstreams[0].api_key == "sk-1"


# Contracts


def test_a_contracts_file_is_looked_for_beside_the_configuration(tmp_path, monkeypatch):
    """Relative paths do not depend on where the process was started."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "mine.toml").write_text(
        '[models.mine]\nfamily = "dall-e-3"\n[models.gpt-image-2]\nsize = false\n', "utf-8"
    )
    (folder / "imagegate.toml").write_text(UPSTREAM + 'contracts = "mine.toml"\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    contracts = contracts_of(load_config(Path("etc") / "imagegate.toml", environment={}))["openai"]
    assert contracts["mine"].family == "dall-e-3"
    assert (contracts["gpt-image-2"].size, "quality" in contracts["gpt-image-2"].parameters) == (None, True)
    assert contracts["dall-e-2"].family == "dall-e-2"


def test_a_contracts_file_may_have_a_full_path(tmp_path):
    """A full path is taken as it is."""
    (tmp_path / "mine.toml").write_text('[models.mine]\nfamily = "dall-e-3"', "utf-8")
    config = parse(UPSTREAM + f'contracts = "{tmp_path}/mine.toml"', directory=Path("/elsewhere"))
    assert "mine" in contracts_of(config)["openai"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (UPSTREAM + '[delivery]\nstroe = "x"', "delivery.stroe: unknown key 'stroe'. Did you mean 'store'?"),
        (UPSTREAM + "[zzz]\na = 1", "zzz: unknown key 'zzz'. Known: prefix, upstreams,"),
        (UPSTREAM + '[policy]\nfit = "x"', "policy.fit: Invalid enum value 'x'; allowed: 'nearest', 'strict', 'pass'"),
        (UPSTREAM + "[upstreams.headers]\nA = 5", "upstreams[0].headers.A: Expected `str`, got `int`"),
        (UPSTREAM + '[prices.models.m]\nimage = "x"', "prices.models.m.image: Expected `float`, got `str`"),
        (UPSTREAM + '[routes]\na = "opnai/x"', "Did you mean 'openai'?"),
    ],
)
def test_an_error_says_what_would_be_right(source: str, said: str) -> None:
    """The nearest name, what is allowed, and the key within a table of any names."""
    with pytest.raises(ConfigError) as caught:
        parse(source)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("section", "missing", "said"),
    [
        (
            '[tasks]\nstore = "redis://h"\nsecret = "0123456789abcdef"',
            "redis",
            "tasks.store: needs the extra 'redis'",
        ),
        ('[idempotency]\nstore = "redis://localhost"', "redis", "idempotency.store: needs the extra 'redis'"),
        ('[delivery]\nstore = "s3://bucket"', "obstore", "delivery.store: needs the extra 'cloud'"),
        ('[policy]\nexact_size = "crop"', "PIL", "policy.exact_size: needs the extra 'convert'"),
        ("[policy]\nexact_format = true", "PIL", "policy.exact_format: needs the extra 'convert'"),
    ],
)
def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, section: str, missing: str, said: str) -> None:
    """Before anything starts, with the command that installs it."""
    find = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ConfigError, match="pip install") as caught:
        parse(UPSTREAM + section)
    assert said in str(caught.value)


def test_models_that_no_contract_has_are_warned_of() -> None:
    """In routes and in prices, with the nearest name; patterns count."""
    config = parse(
        UPSTREAM
        + '[routes]\na = ["openai/gpt-imag-2", "openai/gpt-image-2"]\n[prices.models."gpt-image-22"]\nimage = 1\n'
        + '[prices.models."openai/gpt-image-2"]\nimage = 1'
    )
    told = [warning for warning in warnings_of(config) if "Did you mean" in warning]
    assert [warning.partition(":")[0] for warning in told] == ["routes.a", "prices.models.gpt-image-22"]
    assert all("'gpt-image-2'" in warning for warning in told)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[models", "This is no contract file"),
        ('[models.m]\nfamily = "nope"', "models.m.family: there is no family 'nope'"),
        ("[models.m]\nsizes = 1", "mine.toml: models.m.sizes: unknown key 'sizes'. Did you mean 'size'?"),
    ],
)
def test_a_contracts_file_that_is_wrong_is_an_error_of_its_upstream(tmp_path, content, said):
    """The message names the key that leads to the file, and what is wrong in it."""
    (tmp_path / "mine.toml").write_text(content, "utf-8")
    path = tmp_path / "imagegate.toml"
    path.write_text(UPSTREAM + 'contracts = "mine.toml"', "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    assert str(caught.value).startswith(f"{path}:3: upstreams[0].contracts: {said}")


def test_models_in_place_add_and_override():
    """Models in the configuration stand on the adapter's, and are merged member by member."""
    config = parse(
        UPSTREAM
        + """
        [upstreams.models."new-model"]
        family = "gpt-image-1"

        [upstreams.models."gpt-image-1"]
        size = { rule = "list", values = ["1024x1024"] }
        [upstreams.models."gpt-image-1".parameters]
        quality = { values = ["low"] }
        user = false
        """
    )
    contracts = contracts_of(config)["openai"]
    assert contracts["new-model"].family == "gpt-image-1"
    changed = contracts["gpt-image-1"]
    assert (ListRule(values=("1024x1024",)), Parameter(values=("low",))) == (
        changed.size,
        changed.parameters["quality"],
    )
    assert ("user" in changed.parameters, "n" in changed.parameters) == (False, True)


def test_models_in_place_beat_the_contracts_file(tmp_path):
    """What stands in the configuration itself has the last word."""
    (tmp_path / "mine.toml").write_text('[models.m]\nfamily = "dall-e-3"\nunknown = "pass"', "utf-8")
    source = UPSTREAM + 'contracts = "mine.toml"\n[upstreams.models.m]\nfamily = "dall-e-2"\n'
    contract = contracts_of(parse(source, directory=tmp_path))["openai"]["m"]
    assert (contract.family, contract.unknown) == ("dall-e-2", "pass")


def test_one_upstreams_models_are_not_anothers():
    """Two accounts of one provider have contracts of their own."""
    source = '[[upstreams]]\nname = "a"\nadapter = "openai"\n[upstreams.models.m]\nfamily = "dall-e-2"\n'
    contracts = contracts_of(parse(source + '[[upstreams]]\nname = "b"\nadapter = "openai"\n'))
    assert [find_contract(contracts[name], "m") is not None for name in ("a", "b")] == [True, False]


# Warnings


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (UPSTREAM, []),
        (UPSTREAM + 'api_key = "k"', ["access.keys is not set"]),
        (UPSTREAM + 'api_key = "k"\n[access]\nkeys = ["c"]', []),
        (UPSTREAM + '[delivery]\nstore = "memory://"', ["memory:// loses its pictures"]),
        (UPSTREAM + '[delivery]\npublic_url = "http://localhost:8000/images"', ["is on loopback"]),
        (UPSTREAM + '[delivery]\npublic_url = "http://127.0.0.1/images"', ["is on loopback"]),
        (UPSTREAM + '[delivery]\npublic_url = "https://cdn.example/images"', []),
    ],
)
def test_what_works_but_perhaps_not_as_meant_is_a_warning(source, said):
    """Spending keys for strangers, losing pictures and links that only this machine can load are told."""
    found = warnings_of(parse(source))
    assert len(said) == len(found)
    assert all(text in warning for text, warning in zip(said, found, strict=True))


# Without a file


def test_adapters_whose_keys_are_set_are_on():
    """Every `<NAME>_API_KEY` is an upstream, in alphabetical order; empty ones are not."""
    environment = {
        "TOKENLAB_API_KEY": " sk-lab\n",
        "OPENAI_API_KEY": "sk-oai",
        "TOAPIS_API_KEY": " ",
        "OTHER_API_KEY": "x",
    }
    expected = Config(
        upstreams=(UpstreamConfig(name="openai", api_key="sk-oai"), UpstreamConfig(name="tokenlab", api_key="sk-lab"))
    )
    assert expected == default_config(environment)


def test_no_file_and_no_key_is_an_error_that_lists_the_variables():
    """The message says what could be set."""
    with pytest.raises(ConfigError) as caught:
        default_config({"HOME": "/root"})
    advice, _, variables = str(caught.value).partition(" Keys are read from: ")
    assert advice.startswith("There is no configuration file, and no key of a provider is set.")
    assert {"ONETOKEN_API_KEY", "OPENAI_API_KEY", "TOKENLAB_API_KEY"} <= set(variables.rstrip(".").split(", "))
    assert "imagegate demo" in advice


def test_a_key_is_no_address():
    """Servers of one's own are nowhere by default, whatever keys there are."""
    with pytest.raises(ConfigError) as caught:
        default_config({"OLLAMA_API_KEY": "k", "VLLM_OMNI_API_KEY": "k"})
    assert "OLLAMA_API_KEY" not in str(caught.value)


def test_the_variable_of_a_third_party_has_underscores(monkeypatch):
    """What no variable can be called is an underscore."""
    entry = EntryPoint("my-images.v2", "imagegate_adapters.openai:OpenAI", "imagegate.adapters")
    for module in (config_module, registry):
        monkeypatch.setattr(module, "installed", lambda: {entry.name: entry})
    config = default_config({"MY_IMAGES_V2_API_KEY": "k"})
    assert [(upstream.name, upstream.api_key) for upstream in config.upstreams] == [("my-images.v2", "k")]


def test_the_default_configuration_has_contracts():
    """It is as good as one from a file."""
    assert "gpt-image-2" in contracts_of(default_config({"TOKENLAB_API_KEY": "k"}))["tokenlab"]


# Lines

SOURCE = """\
prefix = "/v1"
delivery.store = "memory://"

[[upstreams]]  # the first
name = "a"
"api_key" = "x"

[upstreams.models."gpt.image"]
family = "dall-e-2"

[ policy ]
fit = "nearest" # fit = 'x'

[[upstreams]]
name = "b"
models = { m = { family = "f" } }

[routes]
'x' = [
  "a/x",
  "b/x",
]
"a b".c = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("prefix",), 1),
        (("delivery", "store"), 2),
        (("upstreams", 0), 4),
        (("upstreams", 0, "name"), 5),
        (("upstreams", 0, "api_key"), 6),
        (("upstreams", 0, "nothing"), 4),
        (("upstreams", 0, "models", "gpt.image"), 8),
        (("upstreams", 0, "models", "gpt.image", "family"), 9),
        (("policy",), 11),
        (("policy", "fit"), 12),
        (("upstreams", 1), 14),
        (("upstreams", 1, "name"), 15),
        (("upstreams", 1, "models", "m", "family"), 16),
        (("routes",), 18),
        (("routes", "x"), 19),
        (("routes", "x", 1), 21),
        (("routes", "a b", "c"), 23),
        (("nothing",), None),
        (("upstreams", 2, "name"), None),
    ],
)
def test_the_line_of_a_key(path, line):
    """A key is found in its own table, and one that is not there where its nearest table begins."""
    assert line == line_of(SOURCE, path)


def test_lines_are_counted_as_editors_count_them():
    """Windows' line ends count once."""
    assert line_of("a = 1\r\n\r\n[b]\r\nc = 2\r\n", ("b", "c")) == 4


@given(st.text(max_size=60), st.lists(st.text(max_size=3) | st.integers(0, 3), max_size=3))
def test_any_text_has_a_line_or_none(source, path):
    """Looking for a line never fails, whatever the file holds."""
    found = line_of(source, path)
    assert found is None or 1 <= found <= len(source.splitlines())
