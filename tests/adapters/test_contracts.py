"""The shipped adapters: what each provider's contracts make of requests, and what holds for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegate.adapter import PendingTask
from imagegate.contracts.changes import Change
from imagegate.contracts.contract import Contract
from imagegate.contracts.documents import load_contracts
from imagegate.contracts.sizes import FlexibleRule, ListRule, NoSizeRule, RatioRule, RatioTierRule
from imagegate.errors import RequestError
from imagegate.fitting.fit import SIZE_FIELDS, fit
from imagegate.protocol.messages import ImageRequest, Link
from imagegate.protocol.requests import read_json
from imagegate.registry import load_adapter

ADAPTERS = ("onetoken", "openai", "toapis", "tokenbay", "tokenlab", "tokmodel")
CONTRACTS = {name: load_contracts(load_adapter(name).contracts()) for name in ADAPTERS}
LINK = "https://a.example/1.png"
LINKS = [f"https://a.example/{number}.png" for number in range(20)]


def distinct() -> dict[str, Contract]:
    """Every contract of every adapter once, under the first of its names."""
    found: dict[bytes, tuple[str, Contract]] = {}
    for adapter, contracts in CONTRACTS.items():
        for model, contract in contracts.items():
            found.setdefault(msgspec.json.encode(contract), (f"{adapter}/{model}", contract))
    return dict(found.values())


ALL = distinct()
every_contract = pytest.mark.parametrize("contract", ALL.values(), ids=ALL)


def request(fields: Mapping[str, Any]) -> ImageRequest:
    return ImageRequest(operation="generations", fields={"model": "m", "prompt": "a hat", **fields}, body=b"{}")


def ask(address: str, policy: str = "nearest", **fields: Any) -> tuple[dict[str, Any], list[Change]]:
    """What becomes of the members beside model and prompt at ``adapter/model``, and the changes."""
    adapter, _, model = address.partition("/")
    fitted, changes = fit(request(fields), CONTRACTS[adapter][model], policy=policy)
    rest = {name: value for name, value in fitted.fields.items() if name not in ("model", "prompt")}
    return rest, list(changes)


def refusal(address: str, policy: str = "nearest", **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(address, policy, **fields)
    assert caught.value.status == 400
    return caught.value


# What is legal, worked out again from the contract's data


def pixels(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    return (int(found[1]), int(found[2])) if found else None


def ratio(text: str) -> Fraction | None:
    """Of a ratio without superfluous zeros."""
    number = r"(0(?=\.)|[1-9][0-9]{0,3})(\.[0-9]{0,2}[1-9])?"
    if not re.fullmatch(f"{number}:{number}", text):
        return None
    width, height = map(Fraction, text.split(":"))
    return width / height


def legal_pixels(rule: FlexibleRule, text: str) -> bool:
    if (text == "auto" and rule.auto) or text in rule.values:
        return True
    size = pixels(text)
    if size is None:
        return False
    long, short = max(size), min(size)
    return (
        [long % rule.multiple, short % rule.multiple] == [0, 0]
        and rule.min_edge <= short <= long <= rule.max_edge
        and rule.min_pixels <= long * short <= rule.max_pixels
        and Fraction(long, short) <= Fraction(rule.max_ratio)
    )


def legal_ratio(rule: RatioRule, text: str) -> bool:
    if text in rule.ratios or (rule.auto and text == "auto"):
        return True
    shape = ratio(text)
    own = rule.any_ratio and shape is not None and "." not in text
    return bool(own and shape and max(shape, 1 / shape) <= Fraction(rule.max_ratio))


def legal_pair(rule: RatioTierRule, sent: Mapping[str, str], *, references: bool) -> bool:
    """`auto` goes with the tier that the provider takes by itself."""
    shape, tier = sent.get(rule.field), sent.get(rule.tier_field)
    if shape is not None and not legal_ratio(rule, shape):
        return False
    if tier is not None and (tier not in rule.tiers or (references and not rule.tier_with_references)):
        return False
    effective, shape = tier or rule.default_tier, shape or rule.default_ratio
    if shape is None or effective not in rule.pairs:
        return True
    if shape == "auto":
        return effective == rule.default_tier
    return shape in rule.pairs[effective]


def size_members(fields: Mapping[str, Any]) -> dict[str, str]:
    """The members that say something about the size, `metadata.resolution` among them."""
    sent = {name: fields[name] for name in ("size", "aspect_ratio", "resolution") if name in fields}
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("resolution"), str):
        sent["metadata.resolution"] = metadata["resolution"]
    return sent


def legal_size(contract: Contract, fields: Mapping[str, Any]) -> bool:
    rule, sent = contract.size, size_members(fields)
    if rule is None or not sent:
        return True
    if isinstance(rule, NoSizeRule):
        return False
    allowed = {rule.field, rule.tier_field} if isinstance(rule, RatioTierRule) else {rule.field}
    if not set(sent) <= allowed:
        return False
    if isinstance(rule, ListRule):
        return sent[rule.field] in rule.values
    if isinstance(rule, FlexibleRule):
        return legal_pixels(rule, sent[rule.field])
    references = contract.references is not None and any(fields.get(name) for name in contract.references.fields)
    if isinstance(rule, RatioTierRule):
        return legal_pair(rule, sent, references=references)
    return legal_ratio(rule, sent[rule.field])


TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "any": object,
}


def legal_value(parameter: Any, value: Any) -> bool:
    right = isinstance(value, TYPES[parameter.type]) and (parameter.type == "boolean" or not isinstance(value, bool))
    if not right or (parameter.values and value not in parameter.values):
        return False
    if isinstance(value, str):
        return parameter.max_length is None or len(value) <= parameter.max_length
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (parameter.min is None or value >= parameter.min) and (parameter.max is None or value <= parameter.max)
    return True


def faults(contract: Contract, fields: Mapping[str, Any]) -> list[str]:
    """The members of a request that its contract does not allow."""
    found = [] if legal_size(contract, fields) else ["size"]
    rule = contract.references
    links = rule.fields if rule else ()
    for name, value in fields.items():
        if name in ("model", "size", "aspect_ratio", "resolution") or (rule and name == rule.mask_field):
            continue
        if name in links:
            listed = value if isinstance(value, list) else [value]
            found += [] if all(isinstance(link, str) for link in listed) else [name]
        elif (parameter := contract.parameters.get(name)) is None:
            found += [name] if contract.unknown == "drop" else []
        else:
            together = all(fields.get(other) in values for other, values in parameter.only_with.items())
            alone = getattr(parameter, "neutral", None) == value
            found += [] if legal_value(parameter, value) and (together or alone) else [name]
    count = sum(len(fields[name]) if isinstance(fields[name], list) else 1 for name in links if name in fields)
    if rule and count > rule.max:
        found.append("too many references")
    if fields.get("background") == "transparent" and fields.get("output_format") == "jpeg":
        found.append("background")
    return found


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Members, those of `metadata` under their path."""
    found = {name: value for name, value in fields.items() if name != "metadata"}
    metadata = fields.get("metadata")
    if isinstance(metadata, dict):
        found |= {f"metadata.{name}": value for name, value in metadata.items()}
    elif metadata is not None:
        found["metadata"] = metadata
    return found


def told(changes: tuple[Change, ...], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The members that differ although no change names them."""
    fields = {change.field for change in changes}
    if "metadata" in fields and isinstance(before["metadata"], dict):
        fields |= {f"metadata.{name}" for name in before["metadata"]}
    results = {str(change.to) for change in changes if change.kind == "renamed"}
    results |= {part.partition("=")[0] for change in changes for part in str(change.to).split(",")}
    old, new = flat(before), flat(after)
    differing = {name for name in old.keys() | new.keys() if old.get(name, ...) != new.get(name, ...)}
    return sorted(differing - fields - results)


def untrue(changes: tuple[Change, ...], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The changes that say of a member what did not happen to it."""
    old, new = flat(before), flat(after)
    return [
        f"{change.kind} {change.field}"
        for change in changes
        if (change.kind == "dropped" and change.field in new)
        or (change.kind == "added" and (change.field in old or new.get(change.field) != change.to))
        or (change.kind == "mapped" and change.from_ != old.get(change.field))
        or (change.kind == "renamed" and change.field not in old)
    ]


def outcome(
    asked: ImageRequest, contract: Contract, policy: str = "nearest"
) -> tuple[ImageRequest, tuple[Change, ...], RequestError | None]:
    """What becomes of a request, or the error that refuses it."""
    try:
        return *fit(asked, contract, policy=policy), None
    except RequestError as error:
        return asked, (), error


some = settings(max_examples=settings.default.max_examples // 2)
"""There are many contracts to run a property for."""


# Anything that a client may write as a size

EDGES = st.integers(1, 9000) | st.sampled_from([512, 720, 768, 1024, 1080, 1152, 1536, 1792, 2048, 2160, 3840, 4096])
SMALL = st.integers(1, 40)
DECIMALS = st.decimals(min_value="0.001", max_value="9999.999", places=3)
WORDS = st.one_of(
    st.sampled_from(
        ["auto", "AUTO", "1K", "1k", "2K", "2k", "4K", "4k", "1.5K", "0.5k", "512", "768sq", "3K", "", "x"]
    ),
    st.builds("{}{}{}".format, EDGES, st.sampled_from(["x", "X", "*", "×", " x "]), EDGES),
    st.builds("{}:{}".format, SMALL, SMALL),
    st.builds("{}:{}".format, DECIMALS, DECIMALS),
    st.builds("{}x{}".format, SMALL, SMALL),
    st.text(st.characters(exclude_categories=()), max_size=64),
    st.sampled_from(["1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "21:9", "9:21"]),
)
SIZES = st.fixed_dictionaries(
    {},
    optional={
        "size": WORDS,
        "aspect_ratio": WORDS,
        "resolution": WORDS,
        "metadata": st.fixed_dictionaries({}, optional={"resolution": WORDS, "trace": st.just("t")}),
    },
)


def with_references(contract: Contract, fields: dict[str, Any], wanted: bool) -> dict[str, Any]:
    rule = contract.references
    return {**fields, rule.fields[0]: [LINK]} if wanted and rule and rule.fields else fields


@every_contract
@some
@given(sizes=SIZES, references=st.booleans())
def test_any_size_becomes_a_legal_one_or_an_error_that_names_it(contract, sizes, references):
    """Whatever the size members say, the result is legal, told member by member, and final; or a 400 says why not."""
    asked = request(with_references(contract, sizes, references))
    fitted, changes, error = outcome(asked, contract)
    if error is not None:
        assert error.status == 400
        assert error.param in SIZE_FIELDS
        assert len(error.message) < 1000
        return
    assert legal_size(contract, fitted.fields)
    assert told(changes, asked.fields, fitted.fields) == []
    assert untrue(changes, asked.fields, fitted.fields) == []
    assert fit(fitted, contract) == (fitted, ())


@every_contract
@some
@given(sizes=SIZES, references=st.booleans(), policy=st.sampled_from(["nearest", "strict"]))
def test_a_legal_request_is_the_same_object_afterwards(contract, sizes, references, policy):
    """What the provider accepts as it is, is not touched, under either policy."""
    asked = request(with_references(contract, sizes, references))
    if faults(contract, asked.fields) or (references and contract.references and contract.references.operation):
        return
    fitted, changes = fit(asked, contract, policy=policy)
    assert fitted is asked
    assert changes == ()


def legal_words(contract: Contract) -> list[dict[str, Any]]:
    """Every legal way to write the size members of a contract, as far as they can be counted."""
    rule = contract.size
    if rule is None or isinstance(rule, NoSizeRule):
        return []
    if isinstance(rule, ListRule):
        return [{rule.field: value} for value in rule.values]
    if isinstance(rule, FlexibleRule):
        listed = [size for ratios in rule.tiers.values() for size in ratios.values()]
        return [{rule.field: value} for value in [*rule.values, *listed, *(["auto"] if rule.auto else [])]]
    shapes: list[str | None] = [None, *rule.ratios, *(["auto"] if rule.auto else [])]
    tiers: tuple[str | None, ...] = (None, *rule.tiers) if isinstance(rule, RatioTierRule) else (None,)
    found = []
    for shape in shapes:
        for tier in tiers:
            words: dict[str, Any] = {} if shape is None else {rule.field: shape}
            if tier is not None and rule.tier_field == "metadata.resolution":
                words["metadata"] = {"resolution": tier}
            elif tier is not None:
                words[rule.tier_field] = tier
            found.append(words)
    return [words for words in found if legal_size(contract, words)]


@pytest.mark.parametrize("policy", ["nearest", "strict"])
@every_contract
def test_every_legal_size_passes_untouched(contract, policy):
    """All words of a contract's own vocabulary, in all combinations that exist, are left alone."""
    touched = [
        words
        for words in legal_words(contract)
        if fit(asked := request(words), contract, policy=policy) != (asked, ()) or not legal_size(contract, words)
    ]
    assert touched == []


def turned(word: Any) -> Any:
    """The portrait twin of a landscape word, and the other way round."""
    if isinstance(word, dict):
        return {name: turned(value) for name, value in word.items()}
    found = re.fullmatch(r"([0-9.]+)([x:])([0-9.]+)", word) if isinstance(word, str) else None
    return f"{found[3]}{found[2]}{found[1]}" if found else word


def symmetric(contract: Contract) -> bool:
    rule = contract.size
    if isinstance(rule, ListRule):
        return {turned(value) for value in rule.values} == set(rule.values)
    if isinstance(rule, RatioRule):
        return {turned(value) for value in rule.ratios} == set(rule.ratios)
    return True


SYMMETRIC = {name: contract for name, contract in ALL.items() if symmetric(contract)}


@pytest.mark.parametrize("contract", SYMMETRIC.values(), ids=SYMMETRIC)
@some
@given(
    member=st.sampled_from(["size", "aspect_ratio"]),
    word=st.builds("{}x{}".format, EDGES, EDGES) | st.builds("{}:{}".format, SMALL, SMALL),
    tier=st.sampled_from([None, "512", "1k", "2K", "4k"]),
)
def test_portrait_mirrors_landscape(contract, member, word, tier):
    """Where the vocabulary has twins, a size and its twin are treated alike."""
    answers = []
    for asked in (word, turned(word)):
        fields = {member: asked} | ({} if tier is None else {"resolution": tier})
        fitted, _, error = outcome(request(fields), contract)
        answers.append({"refused": error.param} if error else dict(fitted.fields))
    assert turned(answers[0]) == answers[1]


def test_only_geminis_vocabulary_lacks_a_twin():
    """Gemini makes 21:9 and no 9:21; every other vocabulary was mirrored above."""
    gemini = {
        "toapis/gemini-*",
        "toapis/gemini-3.1-flash-image*",
        "toapis/gemini-2.5-flash-image*",
        "tokenlab/gemini-3-pro-image-preview",
        "tokenlab/gemini-3.1-flash-image-preview",
        "tokenlab/gemini-2.5-flash-image",
    }
    assert gemini == ALL.keys() - SYMMETRIC.keys()


# Anything that a client may write beside the size

NAMES = sorted({name for contract in ALL.values() for name in (*contract.parameters, *contract.renames)} - {"prompt"})
KNOWN_WORDS = sorted(
    {
        str(word)
        for contract in ALL.values()
        for parameter in contract.parameters.values()
        for word in (*parameter.values, *parameter.translate, *parameter.nearest, *parameter.omit)
    }
)
SCALARS = st.one_of(
    st.sampled_from(KNOWN_WORDS),
    st.booleans(),
    st.integers(-2, 20) | st.sampled_from([100, 101, 2**62]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)
REFERENCES = st.just(LINK) | st.lists(st.sampled_from(LINKS), min_size=1, max_size=18) | SCALARS.filter(bool)
OBJECTS = st.lists(st.fixed_dictionaries({"image_url": st.just(LINK)}), min_size=1, max_size=3)
MEMBERS = st.dictionaries(st.sampled_from([*NAMES, "input_fidelity", "größe"]), VALUES, max_size=6)
PICTURES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("image_urls", "reference_images", "reference_image_urls"), REFERENCES),
        "images": OBJECTS,
        "mask_url": st.just(LINK),
        "mask": st.just({"image_url": LINK}),
    },
)
TIDY = st.fixed_dictionaries({}, optional={"size": st.sampled_from(["1024x1024", "1:1", "auto", "1792x1024"])})


def refused_by_reader(asked: ImageRequest) -> bool:
    """Whether a request would not have got as far as a contract."""
    try:
        read_json(msgspec.json.encode(asked.fields), "generations", max_prompt=32_000)
    except RequestError:
        return True
    return False


@every_contract
@some
@given(members=MEMBERS, pictures=PICTURES, size=TIDY, policy=st.sampled_from(["nearest", "strict"]))
def test_any_request_becomes_a_legal_one_or_an_error_that_names_a_member(contract, members, pictures, size, policy):
    """Nothing illegal is sent, nothing changes untold, masks and references are never lost, and errors say where."""
    asked = request({**members, **pictures, **size})
    if refused_by_reader(asked):
        return
    fitted, changes, error = outcome(asked, contract, policy)
    if error is not None:
        assert error.status == 400
        assert re.split(r"[.\[]", error.param)[0] in asked.fields
        assert len(error.message) < 1000
        return
    assert faults(contract, fitted.fields) == []
    assert told(changes, asked.fields, fitted.fields) == []
    assert untrue(changes, asked.fields, fitted.fields) == []
    assert links_in(asked.fields) == links_in(fitted.fields)
    assert [name in asked.fields for name in ("mask", "mask_url")] == [
        name in fitted.fields for name in ("mask", "mask_url")
    ]


def links_in(fields: Mapping[str, Any]) -> int:
    names = ("image_urls", "reference_images", "reference_image_urls", "images")
    return sum(len(fields[name]) if isinstance(fields[name], list) else 1 for name in names if fields.get(name))


# Providers


@pytest.mark.parametrize(
    ("adapter", "base_url", "path", "poll"),
    [
        ("onetoken", "https://api.onetoken.one", "/v1/images/generations/", "/v1/tasks/t1"),
        ("openai", "https://api.openai.com", "/v1/images/generations", "/v1/tasks/t1"),
        ("toapis", "https://toapis.com", "/v1/images/generations", "/v1/images/generations/t1"),
        ("tokenbay", "https://api.tokenbay.com", "/v1/images/generations", "/v1/tasks/t1"),
        ("tokenlab", "https://api.tokenlab.sh", "/v1/images/generations", "/v1/tasks/t1"),
        ("tokmodel", "https://tokmodel.com", "/v1/images/generations", "/v1/tasks/t1"),
    ],
)
def test_adapters_know_their_providers_addresses(adapter, base_url, path, poll):
    """Origins stand without `/v1`, OneToken's paths end in a slash, ToAPIs is asked where the task was made."""
    found = load_adapter(adapter)
    sent = found.encode(request({}))
    assert (base_url, path) == (found.base_url, sent.path)
    assert (sent.method, sent.content_type, sent.body) == ("POST", "application/json", b"{}")
    asked = found.poll(PendingTask(id="t1"))
    assert ("GET", poll, None) == (asked.method, asked.path, asked.body)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_tasks_id_stays_one_part_of_the_path(adapter):
    """An id is the provider's text: whatever is in it, no other path is asked."""
    found = load_adapter(adapter)
    plain = found.poll(PendingTask(id="ID")).path
    assert plain.replace("ID", "a%2F..%2F%3Fb%23%20%25") == found.poll(PendingTask(id="a/../?b# %")).path


GPT_IMAGE_1 = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5")
GOOGLE_AT_TOKENLAB = (
    "gemini-2.0-flash-preview-image-generation",
    "gemini-2.5-flash-image",
    "gemini-3-pro-image-preview",
    "gemini-3.1-flash-image-preview",
    "nano-banana",
    "nano-banana-2",
    "nano-banana-edit",
    "nano-banana-pro",
)
DOCUMENTED = [
    ("onetoken", ["gpt-image-2"]),
    ("openai", [*GPT_IMAGE_1, "chatgpt-image-latest", "gpt-image-2", "gpt-image-2-2026-04-21", "dall-e-2", "dall-e-3"]),
    ("openai", ["gpt-image-2.5-flare", "gpt-image-2.5-sunburst", "gpt-image-2.5-*"]),
    ("tokenbay", [*GPT_IMAGE_1, "gpt-image-2", "dall-e-2", "dall-e-3"]),
    ("tokmodel", [f"openai/{name}" for name in (*GPT_IMAGE_1, "gpt-image-2", "dall-e-2", "dall-e-3")]),
    ("toapis", ["gpt-image-1.5-official", "gpt-image-2", "gpt-image-2-official", "gpt-image-2-vip", "seedream-4-5"]),
    ("toapis", ["gemini-*", "gemini-2.5-flash-image*", "gemini-3.1-flash-image*"]),
    ("tokenlab", GOOGLE_AT_TOKENLAB),
    ("tokenlab", ["gpt-image-2", "dall-e-2", "dall-e-3", "grok-imagine-image", "grok-imagine-image-quality"]),
    ("tokenlab", ["grok-imagine-image-pro", "flux-pro", "flux-schnell", "midjourney", "ideogram-v3"]),
    ("tokenlab", ["stable-diffusion-3"]),
]


@pytest.mark.parametrize(("adapter", "models"), DOCUMENTED)
def test_providers_have_the_models_that_their_pages_name(adapter, models):
    """Every documented model has a contract."""
    assert [name for name in models if name not in CONTRACTS[adapter]] == []


# Sizes at the providers

AT_PROVIDERS = [
    ("toapis/gpt-image-1.5-official", {"size": "2048x2048"}, {"size": "1:1", "resolution": "2k"}),
    ("toapis/gpt-image-1.5-official", {"size": "1792x1024"}, {"size": "16:9", "resolution": "1k"}),
    ("toapis/gpt-image-1.5-official", {"size": "3840x2160"}, {"size": "16:9", "resolution": "4k"}),
    ("toapis/gpt-image-1.5-official", {"size": "4096x4096"}, {"size": "1:1", "resolution": "2k"}),
    ("toapis/gpt-image-1.5-official", {"size": "1:1", "resolution": "4k"}, {"size": "1:1", "resolution": "2k"}),
    ("toapis/gpt-image-1.5-official", {"size": "21:9", "resolution": "4K"}, {"size": "21:9", "resolution": "4k"}),
    ("toapis/gpt-image-1.5-official", {"aspect_ratio": "7:4"}, {"size": "16:9"}),
    ("toapis/gpt-image-1.5-official", {"aspect_ratio": "4:3"}, {"size": "4:3"}),
    ("toapis/gpt-image-1.5-official", {"size": "AUTO"}, {"size": "auto"}),
    ("toapis/gpt-image-2-official", {"size": "1792x1024"}, {"size": "16:9", "resolution": "1k"}),
    ("toapis/gpt-image-2-official", {"aspect_ratio": "7:4"}, {"size": "7:4"}),
    ("toapis/gpt-image-2-official", {"size": "1:1", "resolution": "4K"}, {"size": "1:1", "resolution": "4k"}),
    ("toapis/gpt-image-2-official", {"size": "16x9"}, {"size": "16:9"}),
    ("toapis/gpt-image-2-official", {"size": "1:3"}, {"size": "1:3"}),
    ("toapis/gpt-image-2-official", {"size": "19.5:9"}, {"size": "13:6"}),
    ("toapis/gpt-image-2-official", {"size": "10:3"}, {"size": "21:9"}),
    ("toapis/gpt-image-1.5-official", {"resolution": "4k"}, {"resolution": "2k"}),
    ("toapis/gpt-image-2-official", {"resolution": "4k"}, {"resolution": "4k"}),
    ("toapis/gpt-image-2", {"size": "1024x1024"}, {"size": "1:1", "resolution": "1k"}),
    ("toapis/gpt-image-2", {"size": "1792x1024"}, {"size": "16:9", "resolution": "2k"}),
    ("toapis/gpt-image-2", {"size": "16:9"}, {"size": "16:9", "resolution": "2k"}),
    ("toapis/gpt-image-2", {"size": "16:9", "resolution": "1k"}, {"size": "16:9", "resolution": "2k"}),
    ("toapis/gpt-image-2", {"size": "3:2", "resolution": "4k"}, {"size": "3:2", "resolution": "2k"}),
    ("toapis/gpt-image-2", {"size": "9:21", "resolution": "4k"}, {"size": "9:21", "resolution": "4k"}),
    ("toapis/gpt-image-2", {"aspect_ratio": "2:3"}, {"size": "2:3"}),
    ("toapis/gpt-image-2", {"resolution": "1k"}, {"resolution": "1k"}),
    ("toapis/gpt-image-2", {"resolution": "4k"}, {"resolution": "2k"}),
    ("toapis/gpt-image-2-vip", {"size": "auto"}, {}),
    ("toapis/gpt-image-2-vip", {"size": "auto", "resolution": "2K"}, {"resolution": "2k"}),
    ("toapis/gemini-*", {"size": "2048x2048"}, {"size": "1:1", "metadata": {"resolution": "2K"}}),
    ("toapis/gemini-*", {"size": "16:9", "resolution": "4k"}, {"size": "16:9", "metadata": {"resolution": "4K"}}),
    (
        "toapis/gemini-*",
        {"size": "2048x2048", "metadata": {"trace": 1}},
        {"size": "1:1", "metadata": {"trace": 1, "resolution": "2K"}},
    ),
    ("toapis/gemini-2.5-flash-image*", {"size": "3840x2160"}, {"size": "16:9"}),
    ("toapis/gemini-3.1-flash-image*", {"size": "4096x1024"}, {"size": "4:1", "metadata": {"resolution": "2K"}}),
    ("toapis/seedream-4-5", {"size": "1024x1024"}, {"size": "1:1", "metadata": {"resolution": "2K"}}),
    ("toapis/seedream-4-5", {"size": "4K"}, {"metadata": {"resolution": "4K"}}),
    ("tokenlab/gpt-image-2", {"aspect_ratio": "16:9", "resolution": "2k"}, {"size": "2048x1152"}),
    ("tokenlab/gpt-image-2", {"size": "1920x1080"}, {"size": "1920x1088"}),
    ("tokenlab/gemini-3-pro-image-preview", {"size": "2048x2048"}, {"aspect_ratio": "1:1", "resolution": "2k"}),
    ("tokenlab/gemini-3-pro-image-preview", {"aspect_ratio": "16:9"}, {"aspect_ratio": "16:9"}),
    ("tokenlab/nano-banana-2", {"size": "3840x2160"}, {"aspect_ratio": "16:9", "resolution": "4k"}),
    ("tokenlab/nano-banana-2", {"size": "8:1"}, {"aspect_ratio": "8:1"}),
    ("tokenlab/nano-banana", {"size": "3840x2160"}, {"aspect_ratio": "16:9"}),
    ("tokenlab/grok-imagine-image", {"size": "3840x2160"}, {"aspect_ratio": "16:9", "resolution": "2k"}),
    ("tokenlab/grok-imagine-image", {"size": "1080x2340"}, {"aspect_ratio": "9:19.5", "resolution": "2k"}),
    ("tokenlab/grok-imagine-image", {"size": "auto"}, {"aspect_ratio": "auto"}),
    ("tokenlab/gemini-2.0-flash-preview-image-generation", {"size": "1024x1024"}, {}),
    ("tokenlab/midjourney", {"size": "odd", "aspect_ratio": "3:1"}, {"size": "odd", "aspect_ratio": "3:1"}),
    ("tokenlab/dall-e-3", {"size": "1536x1024"}, {"size": "1792x1024"}),
    ("tokenbay/gpt-image-1.5", {"size": "1792x1024"}, {"size": "1536x1024"}),
    ("tokenbay/gpt-image-2", {"size": "512x512"}, {"size": "816x816"}),
    ("tokmodel/openai/gpt-image-1", {"size": "16:9"}, {"size": "1536x1024"}),
    ("tokmodel/openai/dall-e-2", {"size": "300x300"}, {"size": "256x256"}),
    ("onetoken/gpt-image-2", {"size": "512x512"}, {"size": "816x816"}),
    ("openai/gpt-image-2.5-sunburst", {"size": "21:9", "resolution": "4k"}, {"size": "3840x1648"}),
]


@pytest.mark.parametrize(("address", "fields", "expected"), AT_PROVIDERS)
def test_sizes_arrive_in_each_providers_dialect(address, fields, expected):
    """Pixels, ratios and tiers become what the provider's page asks for."""
    assert expected == ask(address, **fields)[0]


@pytest.mark.parametrize("address", ["toapis/gpt-image-2", "toapis/gpt-image-1.5-official"])
@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_auto_orders_no_resolution(address, policy):
    """`auto` is a word of ToAPIs: it passes alone, and no larger tier is added to it, which would cost more."""
    assert ask(address, policy, size="auto") == ({"size": "auto"}, [])


@pytest.mark.parametrize(
    ("address", "references", "expected"),
    [
        ("tokenlab/nano-banana-pro", {}, {"aspect_ratio": "16:9", "resolution": "2k"}),
        (
            "tokenlab/nano-banana-pro",
            {"image_urls": [LINK]},
            {"aspect_ratio": "16:9", "image_urls": [LINK], "operation": "image-to-image"},
        ),
        (
            "tokenlab/nano-banana",
            {"image_url": LINK},
            {"aspect_ratio": "16:9", "image_url": LINK, "operation": "image-to-image"},
        ),
        (
            "toapis/gemini-*",
            {"image_urls": [LINK]},
            {"size": "16:9", "metadata": {"resolution": "2K"}, "image_urls": [LINK]},
        ),
    ],
)
def test_resolution_beside_references(address, references, expected):
    """TokenLab's Google models take no resolution for image-to-image, ToAPIs' do."""
    assert expected == ask(address, aspect_ratio="16:9", resolution="2k", **references)[0]


@pytest.mark.parametrize(
    ("address", "fields", "param"),
    [
        ("tokenlab/nano-banana", {"size": "1024x3072"}, "size"),
        ("tokenlab/gpt-image-2", {"aspect_ratio": "8:1"}, "aspect_ratio"),
        ("toapis/gpt-image-1.5-official", {"size": "1000x10"}, "size"),
        ("toapis/gpt-image-2-official", {"size": "8:1"}, "size"),
        ("openai/dall-e-3", {"size": "1:8"}, "size"),
    ],
)
def test_shapes_that_a_provider_comes_nowhere_near_are_refused(address, fields, param):
    """The error names the member and describes what there is."""
    error = refusal(address, **fields)
    assert param == error.param
    assert "Supported" in error.message


@pytest.mark.parametrize(
    ("address", "fields", "param"),
    [
        ("toapis/gpt-image-1.5-official", {"size": "1:1", "resolution": "4k"}, "resolution"),
        ("toapis/gpt-image-2", {"size": "16:9", "resolution": "1k"}, "resolution"),
        ("toapis/gpt-image-2", {"resolution": "4k"}, "resolution"),
        ("toapis/gpt-image-1.5-official", {"size": "4096x4096"}, "size"),
        ("tokenlab/grok-imagine-image", {"size": "3840x2160"}, "size"),
    ],
)
def test_strict_refuses_a_pair_that_does_not_exist(address, fields, param):
    """The member that cannot be had is named, with the nearest value."""
    error = refusal(address, "strict", **fields)
    assert param == error.param
    assert "The nearest is " in error.message


# Parameters at the providers


@pytest.mark.parametrize("compression", ["output_compression", "compression"])
@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_tokenlabs_list_for_gpt_image_2_passes_untouched(compression, policy):
    """All that TokenLab documents for gpt-image-2 goes through as it is."""
    fields = {
        "n": 2,
        "size": "1536x1024",
        "quality": "high",
        "response_format": "url",
        "async": True,
        "background": "opaque",
        "output_format": "webp",
        compression: 80,
        "moderation": "low",
        "partial_images": 2,
        "user": "u1",
    }
    assert (fields, []) == ask("tokenlab/gpt-image-2", policy, **fields)


GPT = ["tokenlab/gpt-image-2", "openai/gpt-image-2", "tokenbay/gpt-image-2", "tokmodel/openai/gpt-image-2"]


@pytest.mark.parametrize("address", [*GPT, "onetoken/gpt-image-2", "toapis/gpt-image-2", "openai/gpt-image-1"])
def test_input_fidelity_is_dropped_and_told(address):
    """It belongs to edits; generations leave it out."""
    assert ({}, [Change("input_fidelity", "dropped")]) == ask(address, input_fidelity="high")


@pytest.mark.parametrize("address", ["tokenbay/gpt-image-1.5", "tokenbay/gpt-image-1-mini", "onetoken/gpt-image-2"])
def test_input_fidelity_of_edits_goes_only_where_it_is_documented(address):
    """OpenAI's models know it; these providers' pages for edits do not."""
    adapter, _, model = address.partition("/")
    edits = CONTRACTS[adapter][model].edits
    assert edits is not None
    fitted, changes = fit(request({"input_fidelity": "high"}), edits)
    assert "input_fidelity" not in fitted.fields
    assert list(changes) == [Change("input_fidelity", "dropped")]


@pytest.mark.parametrize(
    ("fields", "kept", "changes"),
    [
        ({"partial_images": 2}, {}, [Change("partial_images", "dropped")]),
        ({"partial_images": 2, "stream": False}, {"stream": False}, [Change("partial_images", "dropped")]),
        ({"partial_images": 0}, {"partial_images": 0}, []),
        ({"partial_images": 2, "stream": True}, {"partial_images": 2, "stream": True}, []),
    ],
)
@pytest.mark.parametrize("address", ["openai/gpt-image-2", "openai/gpt-image-1", "tokmodel/openai/gpt-image-2"])
def test_partial_images_go_with_streams_only(address, fields, kept, changes):
    """OpenAI's reference: "only with stream"; without one nobody would ever see them."""
    assert (kept, changes) == ask(address, **fields)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tokenlab/gpt-image-2", "compression"),
        ("openai/gpt-image-2", "output_compression"),
        ("tokenbay/gpt-image-2", "output_compression"),
        ("tokmodel/openai/gpt-image-2", "output_compression"),
        ("toapis/gpt-image-2", "output_compression"),
    ],
)
def test_compression_has_the_name_that_the_provider_knows(address, expected):
    """TokenLab takes both names, the others only OpenAI's."""
    rest, changes = ask(address, compression=80, output_format="jpeg")
    assert rest == {expected: 80, "output_format": "jpeg"}
    renamed = [] if expected == "compression" else [Change("compression", "renamed", "compression", expected)]
    assert renamed == changes


@pytest.mark.parametrize("address", ["openai/gpt-image-2", "toapis/gpt-image-2", "tokmodel/openai/gpt-image-1"])
def test_an_error_names_the_member_as_the_client_calls_it(address):
    """Who sent `compression` is not told about a member of another name."""
    error = refusal(address, compression=101, output_format="jpeg")
    assert (error.param, error.code) == ("compression", "integer_above_max_value")


QUALITIES = [
    ("openai/gpt-image-2", "hd", "high"),
    ("openai/gpt-image-2", "standard", "medium"),
    ("openai/gpt-image-2.5-flare", "xhigh", "xhigh"),
    ("openai/dall-e-3", "medium", "standard"),
    ("openai/dall-e-3", "high", "hd"),
    ("openai/dall-e-3", "auto", None),
    ("openai/dall-e-2", "hd", None),
    ("tokenlab/gpt-image-2", "hd", "high"),
    ("tokenlab/dall-e-3", "high", "hd"),
    ("tokenlab/dall-e-3", "hd", "hd"),
    ("tokenlab/flux-pro", "hd", None),
    ("tokenlab/grok-imagine-image", "high", None),
    ("tokenbay/gpt-image-1", "standard", "medium"),
    ("tokmodel/openai/dall-e-3", "low", "standard"),
    ("onetoken/gpt-image-2", "hd", "high"),
    ("toapis/gpt-image-2", "hd", "high"),
    ("toapis/gpt-image-2", "max", "high"),
    ("toapis/gpt-image-2", "auto", None),
    ("toapis/gemini-*", "high", None),
]


@pytest.mark.parametrize(("address", "asked", "expected"), QUALITIES)
def test_quality_by_provider_and_family(address, asked, expected):
    """Each family has its own words, and those that have none get none."""
    rest, changes = ask(address, quality=asked)
    assert expected == rest.get("quality")
    if expected is None:
        assert changes == [Change("quality", "dropped")]
    else:
        assert ([] if expected == asked else [Change("quality", "mapped", asked, expected)]) == changes


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("openai/dall-e-3", True),
        ("tokenlab/dall-e-3", True),
        ("tokmodel/openai/dall-e-3", True),
        ("tokenbay/dall-e-3", False),
        ("openai/dall-e-2", False),
        ("openai/gpt-image-1", False),
        ("tokenlab/gpt-image-2", False),
        ("tokenlab/grok-imagine-image", False),
        ("tokenlab/flux-pro", False),
        ("toapis/gpt-image-2", False),
    ],
)
def test_style_is_dall_e_3s(address, kept):
    """`style` is dropped, and told, wherever it is not documented."""
    expected = ({"style": "vivid"}, []) if kept else ({}, [Change("style", "dropped")])
    assert expected == ask(address, style="vivid")


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("openai/gpt-image-1", False),
        ("openai/gpt-image-2", False),
        ("openai/dall-e-2", True),
        ("tokenlab/gpt-image-2", True),
        ("tokenlab/flux-pro", True),
        ("tokenlab/grok-imagine-image", True),
        ("tokenbay/gpt-image-2", False),
        ("tokenbay/dall-e-3", True),
        ("tokmodel/openai/dall-e-3", True),
        ("onetoken/gpt-image-2", False),
        ("toapis/gpt-image-2", False),
        ("toapis/gemini-*", False),
    ],
)
def test_response_format_goes_where_it_is_taken(address, kept):
    """GPT image models refuse the very name, so it is not sent there."""
    expected = ({"response_format": "url"}, []) if kept else ({}, [Change("response_format", "dropped")])
    assert expected == ask(address, response_format="url")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("openai/gpt-image-2", "safety_identifier"),
        ("openai/dall-e-3", "user"),
        ("tokenlab/gpt-image-2", "user"),
        ("tokenlab/grok-imagine-image", "user"),
        ("tokenlab/midjourney", "user"),
        ("tokenbay/gpt-image-1.5", "user"),
        ("onetoken/gpt-image-2", None),
        ("toapis/gpt-image-2", None),
    ],
)
def test_safety_identifier_is_user_elsewhere(address, expected):
    """The new name for the end user becomes the old one where the provider knows no other."""
    assert ({expected: "u1"} if expected else {}) == ask(address, safety_identifier="u1")[0]


@pytest.mark.parametrize(
    ("fields", "expected", "changes"),
    [
        ({"output_format": "webp"}, {"output_format": "png"}, [Change("output_format", "mapped", "webp", "png")]),
        ({"output_format": "jpeg", "output_compression": 50}, {"output_format": "jpeg", "output_compression": 50}, []),
        (
            {"output_format": "png", "output_compression": 50},
            {"output_format": "png"},
            [Change("output_compression", "dropped")],
        ),
        (
            {"output_compression": 50, "output_format": "webp"},
            {"output_format": "png"},
            [Change("output_format", "mapped", "webp", "png"), Change("output_compression", "dropped")],
        ),
    ],
)
def test_toapis_makes_png_and_jpeg(fields, expected, changes):
    """WebP is what Azure behind ToAPIs does not make; compression goes with JPEG only."""
    assert (expected, changes) == ask("toapis/gpt-image-2-official", **fields)


def test_strict_refuses_webp_at_toapis():
    """Another format is another picture."""
    error = refusal("toapis/gpt-image-2", "strict", output_format="webp")
    assert (
        error.param,
        error.message,
    ) == ("output_format", "Invalid value: 'webp'. Supported values are: 'png', and 'jpeg'.")


@pytest.mark.parametrize(
    ("address", "passes"),
    [
        ("openai/gpt-image-1", True),
        ("openai/gpt-image-2", True),
        ("tokenbay/gpt-image-1", True),
        ("tokmodel/openai/gpt-image-1", True),
        ("tokenlab/gpt-image-2", False),
        ("tokenlab/flux-pro", False),
        ("tokenlab/dall-e-3", False),
        ("onetoken/gpt-image-2", False),
        ("toapis/gpt-image-1.5-official", False),
        ("toapis/gemini-*", False),
    ],
)
def test_transparency_passes_or_is_refused(address, passes):
    """A transparent background is never quietly made opaque."""
    if passes:
        assert ask(address, background="transparent") == ({"background": "transparent"}, [])
        assert refusal(address, background="transparent", output_format="jpeg").param == "background"
    else:
        assert refusal(address, background="transparent").param == "background"


@every_contract
@pytest.mark.parametrize("member", ["mask", "mask_url"])
@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_no_contract_drops_a_mask(contract, member, policy):
    """A mask passes in the member that the contract names, or the request is refused under its name."""
    own = contract.references.mask_field if contract.references else None
    asked = request({member: LINK})
    if member == own:
        assert fit(asked, contract, policy=policy)[0].fields[member] == LINK
        return
    with pytest.raises(RequestError) as caught:
        fit(asked, contract, policy=policy)
    assert (member, "unsupported_parameter") == (caught.value.param, caught.value.code)


@pytest.mark.parametrize(
    ("address", "member", "most"),
    [
        ("toapis/gpt-image-1.5-official", "image_urls", 16),
        ("toapis/gpt-image-2-vip", "reference_images", 16),
        ("toapis/gemini-*", "image_urls", 14),
        ("toapis/seedream-4-5", "image_urls", 14),
        ("tokenlab/nano-banana", "image_urls", 16),
        ("tokenlab/flux-pro", "image_urls", 16),
        ("tokenlab/grok-imagine-image", "image_urls", 3),
    ],
)
def test_as_many_references_as_the_provider_takes(address, member, most):
    """The maximum passes, one more is refused."""
    assert ask(address, **{member: LINKS[:most]})[0][member] == LINKS[:most]
    error = refusal(address, **{member: LINKS[: most + 1]})
    assert (member, f"This model takes at most {most} reference images.") == (error.param, error.message)


@pytest.mark.parametrize(
    ("address", "member", "expected"),
    [
        ("toapis/gpt-image-2", "reference_images", "reference_images"),
        ("toapis/gpt-image-2", "image_url", "image_urls"),
        ("toapis/gpt-image-2-vip", "image_urls", "reference_images"),
        ("toapis/gemini-*", "reference_images", "image_urls"),
        ("tokenlab/flux-pro", "reference_images", "image_urls"),
        ("tokenlab/flux-pro", "reference_image_urls", "reference_image_urls"),
    ],
)
def test_references_go_by_the_providers_name(address, member, expected):
    """A member that the provider does not have is renamed, its own stays."""
    rest, changes = ask(address, **{member: LINKS[:2]})
    assert rest == {expected: LINKS[:2]}
    assert ([] if member == expected else [Change(member, "renamed", member, expected)]) == changes


@pytest.mark.parametrize(
    "address",
    [
        "openai/gpt-image-2",
        "tokenlab/gpt-image-2",
        "tokenlab/dall-e-3",
        "tokenlab/gemini-2.0-flash-preview-image-generation",
        "tokenbay/gpt-image-2",
        "onetoken/gpt-image-2",
    ],
)
def test_references_are_refused_where_generations_take_none(address):
    """References are never dropped from a generation."""
    error = refusal(address, image_urls=[LINK])
    assert (error.param, error.code) == ("image_urls", "unsupported_parameter")


@pytest.mark.parametrize(
    ("address", "most"),
    [
        ("openai/gpt-image-2", 10),
        ("openai/dall-e-3", 1),
        ("tokenlab/flux-pro", 10),
        ("toapis/gpt-image-2", 10),
        ("toapis/gemini-*", 1),
        ("toapis/seedream-4-5", 15),
        ("onetoken/gpt-image-2", 10),
    ],
)
def test_n_goes_up_to_the_models_maximum(address, most):
    """The maximum passes, one more is refused in OpenAI's words, and the contract says how far one request goes."""
    assert ask(address, n=most) == ({"n": most}, [])
    assert ((error := refusal(address, n=most + 1)).param, error.code) == ("n", "integer_above_max_value")
    adapter, _, model = address.partition("/")
    assert most == CONTRACTS[adapter][model].max_images


@pytest.mark.parametrize(
    ("address", "longest"),
    [
        ("tokenlab/gpt-image-2", 4000),
        ("tokenlab/midjourney", 4000),
        ("tokenlab/gemini-2.0-flash-preview-image-generation", 4000),
        ("openai/gpt-image-2", 32_000),
        ("openai/dall-e-3", 4000),
        ("openai/dall-e-2", 1000),
        ("toapis/gpt-image-2", 32_000),
    ],
)
def test_prompts_are_as_long_as_the_provider_takes(address, longest):
    """A prompt is never cut: a longer one is an error."""
    ask(address, prompt="y" * longest)
    error = refusal(address, prompt="y" * (longest + 1))
    assert (error.param, error.code) == ("prompt", "string_above_max_length")


@pytest.mark.parametrize(
    ("address", "fields", "kept"),
    [
        (
            "tokenlab/flux-pro",
            {"seed": 5, "negative_prompt": "rain", "async": True},
            {"seed", "negative_prompt", "async"},
        ),
        ("tokenlab/nano-banana", {"seed": 5, "negative_prompt": "rain", "async": True}, set()),
        ("toapis/gpt-image-2", {"client_business_id": "b", "user": "u"}, {"client_business_id"}),
        ("toapis/seedream-4-5", {"watermark": False, "client_business_id": "b"}, {"watermark", "client_business_id"}),
        (
            "onetoken/gpt-image-2",
            {"background": "opaque", "moderation": "low", "output_format": "png", "user": "u"},
            set(),
        ),
        ("tokenbay/gpt-image-2", {"moderation": "low", "partial_images": 1, "user": "u"}, {"moderation", "user"}),
    ],
)
def test_members_of_their_own_stay_with_the_providers_that_have_them(address, fields, kept):
    """What a page documents passes, what it does not is dropped and told."""
    rest, changes = ask(address, **fields)
    assert ({name: fields[name] for name in kept}, set(fields) - kept) == (rest, {change.field for change in changes})


# Edits


@every_contract
@some
@given(sizes=SIZES)
def test_edits_keep_the_rules_of_their_own_contract(contract, sizes):
    """An edit that starts from a link has a legal size afterwards, or an error that names it."""
    own = contract.by_operation["edits"]
    asked = ImageRequest(operation="edits", fields={"model": "m", "prompt": "p", **sizes}, images=(Link(LINK),))
    fitted, changes, error = outcome(asked, contract)
    if error is not None:
        assert error.param in (SIZE_FIELDS if own else ["model"])
        return
    fields = {name: value for name, value in fitted.fields.items() if name != "operation"}
    assert legal_size(own, with_references(own, fields, wanted=True))
    assert told(changes, asked.fields, fields) == []
    assert fitted.operation == (own.endpoint or "edits")


@pytest.mark.parametrize("model", list(CONTRACTS["toapis"]))
def test_files_are_as_large_as_toapis_upload_api_takes(model):
    """ "jpeg/png/webp/gif <= 10 MB": a larger one would be sent to be refused."""
    contract = CONTRACTS["toapis"][model]
    rules = [found.references for found in (contract, contract.edits) if found is not None and found.references]
    assert [rule.max_bytes for rule in rules] == [10_000_000] * len(rules) != []
