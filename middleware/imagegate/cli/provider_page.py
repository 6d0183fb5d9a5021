"""A page about a provider, made from its adapter: for `imagegate models --adapter` and for ``docs/providers``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import msgspec.inspect

from imagegate.adapter import Adapter, TextFile
from imagegate.config.loader import key_variable
from imagegate.contracts.body import BodyRule
from imagegate.contracts.contract import Contract
from imagegate.contracts.documents import load_contracts
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.reference_rule import ReferenceForm, ReferenceRule
from imagegate.contracts.sizes import FlexibleRule, ListRule, RatioRule, RatioTierRule, SizeRule

_FORMS: Mapping[str, str] = {
    "files": "files",
    "objects": "links as `images: [{image_url}]`",
    "inline": "base64 in JSON",
    "uploads": "files, by the upload API",
}
_KINDS: Mapping[type[msgspec.inspect.Type], str] = {
    msgspec.inspect.IntType: "a whole number",
    msgspec.inspect.FloatType: "a number",
    msgspec.inspect.BoolType: "true, false",
    msgspec.inspect.DictType: "a table",
    msgspec.inspect.VarTupleType: "a list",
}
_TYPES: Mapping[str, str] = {"string": "text", "boolean": "true, false", "integer": "a whole number"}


def provider_page(adapter: Adapter) -> str:
    """Return the page, as Markdown."""
    contracts = load_contracts(adapter.contracts())
    blocks = [*_head(adapter), *_options(adapter), *_models(contracts), *_retired(contracts), *_prices(adapter)]
    blocks += _rest(adapter)
    return "\n\n".join(blocks) + "\n"


def _head(adapter: Adapter) -> Iterator[str]:
    provider = adapter.contracts().provider
    title = provider.title if provider else adapter.name
    yield f"# {title}"
    address = f"`{adapter.base_url}`" if adapter.base_url else "each upstream names its own `base_url`"
    lines = [f"- adapter: `{adapter.name}`", f"- address: {address}"]
    if adapter.base_url:
        lines.append(f"- environment: `{key_variable(adapter.name)}`")
    if provider and provider.key:
        lines.append(f"- key: {provider.key}")
    if not adapter.authentication.required:
        lines.append("- key: none is needed; the client's own is never sent there")
    if provider and provider.docs:
        lines.append(f"- documentation: <{provider.docs}>")
    if adapter.always_tasks:
        lines.append("- every request becomes a task of the provider, which the gateway waits for")
    yield "\n".join(lines)


def _options(adapter: Adapter) -> Iterator[str]:
    fields = msgspec.structs.fields(adapter.options_type)
    if fields:
        yield "## Options"
        yield _table(("option", "takes", "default"), [(f"`{each.encode_name}`", *_option(each)) for each in fields])


def _option(field: msgspec.structs.FieldInfo) -> tuple[str, str]:
    """Return what an option takes, and what it is where the configuration says nothing."""
    kind = msgspec.inspect.type_info(field.type)
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    takes = " or ".join(dict.fromkeys(filter(None, map(_kind, kinds))))
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return takes, "" if default in (None, "") or default == {} else f"`{_json(default)}`"


def _kind(kind: msgspec.inspect.Type) -> str:
    match kind:
        case msgspec.inspect.LiteralType(values):
            return _words(values)
        case msgspec.inspect.CustomType(cls):
            return "the name of a text file" if cls is TextFile else cls.__name__
        case msgspec.inspect.NoneType():
            return ""
        case _:
            return _KINDS.get(type(kind), "text")


def _models(contracts: Mapping[str, Contract]) -> Iterator[str]:
    groups: dict[bytes, list[str]] = {}
    for name, contract in contracts.items():
        groups.setdefault(msgspec.json.encode(msgspec.structs.replace(contract, retired=None)), []).append(name)
    for names in groups.values():
        contract = contracts[names[0]]
        yield "## " + ", ".join("any model" if name == "*" else f"`{name}`" for name in names)
        yield "\n".join(_facts(contract))
        yield _table(("member", "takes", "also understood"), [*_members(contract)])
        if contract.unknown == "drop":
            yield "Every other member is dropped, and named in `Imagegate-Changes`."
        else:
            yield "Every other member is sent as it is."


def _facts(contract: Contract) -> Iterator[str]:
    yield f"- sizes: {_size(contract.size)}"
    if contract.edits_only:
        yield "- generations: none"
    alone = "".join(f", 1 with `{name}` {_words(values)}" for name, values in contract.one_image_with.items())
    yield f"- images in one request: {contract.max_images}{alone}; more are several requests"
    generations = contract.references
    if generations is not None:
        yield f"- references of generations: {_references(generations)}"
    for name, own in (("edits", contract.edits), ("variations", contract.variations)):
        if own is not None and own.references is not None:
            where = f", sent to {own.endpoint}" if own.endpoint else ""
            yield f"- {name}: {_references(own.references)}{where}"
            if own.size != contract.size:
                yield f"- sizes of {name}: {_size(own.size)}"
    if contract.edits is None:
        yield "- edits: none; a reference is refused" if generations is None else "- edits: none of their own"
    elif contract.variations is None:
        yield "- variations: as edits, with a prompt of the gateway's"
    for name, body in (("requests", contract.body), ("edits", contract.edits.body if contract.edits else None)):
        if body is not None and (name == "requests" or body != contract.body):
            yield f"- {name} are written with {_body(body, has_references=contract.edits is not None)}"
    yield f"- streams: {'its own' if contract.streams else 'made by the gateway'}"


def _size(rule: SizeRule | None) -> str:
    if rule is None:
        return "as they are"
    if isinstance(rule, ListRule):
        ratios = f"; `{rule.ratio_field}`: {_words(rule.ratios)}" if rule.ratios else ""
        return f"`{rule.field}`: {_words(rule.values)}{ratios}"
    if isinstance(rule, FlexibleRule):
        plain = FlexibleRule()
        limits = [f"multiples of {rule.multiple}"] if rule.multiple > 1 else []
        limits += [f"edges from {rule.min_edge}"] if rule.min_edge > 1 else []
        limits += [f"edges to {rule.max_edge}"] if rule.max_edge < plain.max_edge else []
        limits += [f"from {rule.min_pixels:,} pixels"] if rule.min_pixels > 1 else []
        limits += [f"to {rule.max_pixels:,} pixels"] if rule.max_pixels < plain.max_pixels else []
        limits += [f"ratios to {rule.max_ratio:g}:1"] if rule.max_ratio < plain.max_ratio else []
        values = [*(["auto"] if rule.auto else []), *rule.values]
        return f"`{rule.field}`: {', '.join(limits) or 'any pixels'}" + (f"; {_words(values)}" if values else "")
    if isinstance(rule, RatioTierRule):
        pairs = [f"{tier} only with {', '.join(ratios)}" for tier, ratios in rule.pairs.items()]
        without = "" if rule.tier_with_references else "; no tier with references"
        tiers = f"`{rule.tier_field}`: {_words(rule.tiers)}{without}"
        return "; ".join([f"`{rule.field}`: {_ratios(rule)}", tiers, *pairs])
    if isinstance(rule, RatioRule):
        return f"`{rule.field}`: {_ratios(rule)}"
    return "none: what is asked is dropped"


def _body(rule: BodyRule, *, has_references: bool) -> str:
    """Return what a body says otherwise than the client's request."""
    said = [f"`{name}` as `{own}`" if own else f"no `{name}`" for name, own in rule.names.items()]
    if rule.edges:
        said.append(f"a size as `{rule.edges[0]}` and `{rule.edges[1]}`")
    said += [f"`{name}` {_json(value)} beside a size" for name, value in rule.with_size.items()]
    said += [f"`{name}` {_json(value)}" for name, value in rule.constants.items()]
    images = (rule.images,) if isinstance(rule.images, str) else rule.images
    said += [f"references in {_words(images)}"] if has_references and any(images) else []
    said += [f"the mask in `{rule.mask}`"] if rule.mask else []
    return ", ".join(said) or "their members as they are"


def _ratios(rule: RatioRule) -> str:
    more = [*(["auto"] if rule.auto else [])]
    return _words([*rule.ratios, *more]) + (" and other ratios of whole numbers" if rule.any_ratio else "")


def _references(rule: ReferenceRule) -> str:
    forms = [_form(form, rule) for form in rule.forms]
    kinds = ", ".join(kind.removeprefix("image/").upper() for kind in rule.kinds)
    mask = "no mask"
    if rule.takes_mask:
        mask = {"alpha": "a mask", "white": "a mask, made white on black", "black": "a mask, made black on white"}[
            rule.mask_polarity
        ] + (" without grey" if rule.mask_two_valued else "")
        if rule.mask_without:
            mask += f" (without {_words(rule.mask_without)})"
    more = [*(["a markup"] if rule.markup else []), *(["square ones only"] if rule.square else [])]
    most = "one" if rule.max == 1 else f"up to {rule.max}"
    return ", ".join([f"{most} as {' or '.join(forms)}", f"{kinds} to {rule.max_bytes / 1e6:g} MB each", mask, *more])


def _form(form: ReferenceForm, rule: ReferenceRule) -> str:
    if form == "links" and rule.fields:
        return f"links in `{rule.fields[0]}`" + (", files by the upload API" if rule.upload else "")
    return _FORMS.get(form, form)


def _members(contract: Contract) -> Iterator[tuple[str, str, str]]:
    edits = contract.edits.parameters if contract.edits else {}
    renamed: dict[str, list[str]] = {}
    for other, own in contract.renames.items():
        renamed.setdefault(own, []).append(other)
    for name, parameter in {**edits, **contract.parameters}.items():
        only = "" if name in contract.parameters else " (edits)"
        yield f"`{name}`{only}", _takes(parameter), _understood(parameter, renamed.get(name, []))


def _takes(parameter: Parameter) -> str:
    if parameter.values:
        text = _words(parameter.values)
    elif parameter.min is not None and parameter.max is not None:
        text = f"{_number(parameter.min)} to {_number(parameter.max)}"
    elif parameter.min is not None:
        text = f"from {_number(parameter.min)}"
    else:
        text = _TYPES.get(parameter.type, parameter.type)
    notes = [f"at least {parameter.min_length:,} characters"] if parameter.min_length else []
    notes += [f"at most {parameter.max_length:,} characters"] if parameter.max_length else []
    notes += [f"only with `{name}` {_words(values)}" for name, values in parameter.only_with.items()]
    notes += [f"not with `{name}` {_words(values)}" for name, values in parameter.not_with.items()]
    notes += [f"`{_json(parameter.default)}` where none is sent"] if parameter.default is not None else []
    notes += ["random where none is sent"] if parameter.random else []
    return "; ".join([text, *notes])


def _understood(parameter: Parameter, renamed: Sequence[str]) -> str:
    twins = [f"`{value}` as `{own}`" for value, own in parameter.translate.items()]
    near = [f"`{value}` as `{own}`, the nearest" for value, own in parameter.nearest.items()]
    left = [f"`{value}` by leaving it out" for value in parameter.omit]
    return ", ".join([*(f"`{name}`" for name in renamed), *twins, *near, *left])


def _retired(contracts: Mapping[str, Contract]) -> Iterator[str]:
    rows = [
        (f"`{name}`", each.since, f"`{each.successor}`", each.source)
        for name, contract in contracts.items()
        if (each := contract.retired) is not None
    ]
    if rows:
        yield "## Retired models"
        yield _table(("model", "since", "answered by", "source"), rows)
        yield '`retired = false` in `[upstreams.models."NAME"]` sends requests to the model itself.'


def _prices(adapter: Adapter) -> Iterator[str]:
    """Yield how many models have a price, and of when, or why none has one."""
    document, provider = adapter.prices(), adapter.contracts().provider
    if not document.models and not document.unpriced and not (provider and provider.no_prices):
        return
    yield "## Prices"
    if document.models:
        dates = sorted({price.date or document.date for price in document.models.values()})
        sources = dict.fromkeys(price.source or document.source for price in document.models.values())
        when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        yield f"In {document.currency}, of {when}: {_words(document.models)}. `[prices.models]` overrides them."
        yield "\n".join(f"- <{source}>" for source in sources)
    elif provider and provider.no_prices:
        yield f"None are shipped: {provider.no_prices} `[prices.models]` names your own."
    if document.unpriced:
        yield "No price is shipped of:"
        yield "\n".join(f"- `{model}`: {reason}" for model, reason in document.unpriced.items())


def _rest(adapter: Adapter) -> Iterator[str]:
    provider = adapter.contracts().provider
    if provider and provider.notes:
        yield "## Notes"
        yield "\n".join(f"- {note}" for note in provider.notes)
    if provider and provider.sources:
        yield "## Sources"
        yield "\n".join(f"- {source}" for source in provider.sources)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _words(values: Iterable[object]) -> str:
    return ", ".join(f"`{value if isinstance(value, str) else _json(value)}`" for value in values)


def _json(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
