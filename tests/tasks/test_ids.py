"""Task ids: what is put in comes out, for its owner alone and in time; everything else reads as nothing."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from imagegate.tasks.ids import OwnTicket, ProviderTicket, TaskIds

SECRET = b"0123456789abcdef"
IDS = TaskIds(lambda: SECRET, ttl=100)
OWNER = IDS.owner("Bearer one")
NOW = 1_800_000_000.0

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)


@st.composite
def provider_ids(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    facts = {
        "upstream": draw(names),
        "model": draw(names),
        "task": draw(names),
        "poll_path": draw(st.just("") | names),
        "cancel_path": draw(st.just("") | names),
        "images": draw(st.integers(1, 100)),
    }
    text = IDS.provider(OWNER, now=NOW, **facts)  # type: ignore[arg-type]
    assert text is not None
    return text, facts


@given(provider_ids())
def test_provider_ids_carry_everything(made: tuple[str, dict[str, object]]) -> None:
    """Any process with the secret knows where to ask."""
    text, facts = made
    ticket = TaskIds(lambda: SECRET, ttl=5).read(text, OWNER, now=NOW)
    assert isinstance(ticket, ProviderTicket)
    assert {name: getattr(ticket, name) for name in facts} == facts
    assert IDS.number(ticket) == IDS.number(ticket)


def test_own_ids() -> None:
    """The number is that under which the task is kept; no two are the same."""
    text, number = IDS.own(OWNER, now=NOW)
    ticket = IDS.read(text, OWNER, now=NOW)
    assert isinstance(ticket, OwnTicket)
    assert IDS.number(ticket) == number
    assert len({IDS.own(OWNER, now=NOW)[1] for _ in range(100)}) == 100


@given(provider_ids(), st.integers(0, 400), st.integers(1, 255))
def test_a_changed_bit_is_seen(made: tuple[str, dict[str, object]], place: int, flip: int) -> None:
    """Of the document as of the signature."""
    signed = bytearray(base64.urlsafe_b64decode(made[0][5:] + "=" * (-len(made[0][5:]) % 4)))
    signed[place % len(signed)] ^= flip
    forged = "task_" + base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
    assert IDS.read(forged, OWNER, now=NOW) is None


@given(provider_ids(), st.text())
def test_other_owners_and_secrets(made: tuple[str, dict[str, object]], key: str) -> None:
    """An id is worth nothing to anybody else."""
    other = IDS.owner(key)
    assert (IDS.read(made[0], other, now=NOW) is None) == (other != OWNER)
    assert TaskIds(lambda: b"another secret!!", ttl=100).read(made[0], OWNER, now=NOW) is None


def test_expiry() -> None:
    """To the second."""
    text, _ = IDS.own(OWNER, now=NOW)
    assert IDS.read(text, OWNER, now=NOW + 100) is not None
    assert IDS.read(text, OWNER, now=NOW + 101) is None


@given(st.text(max_size=2000) | st.from_regex(r"task_[A-Za-z0-9_-]{0,200}", fullmatch=True))
def test_anything_else_is_none(text: str) -> None:
    """Without an error."""
    assert IDS.read(text, OWNER, now=NOW) is None


def test_one_spelling() -> None:
    """The bits that base64 leaves over cannot make a second id of the same task."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text, _ = IDS.own(OWNER, now=NOW)
    good = [last for last in alphabet if IDS.read(text[:-1] + last, OWNER, now=NOW)]
    assert good == [text[-1]]


def test_what_is_too_long_is_kept_by_the_gateway() -> None:
    """A provider's id that makes no good part of an address."""
    facts = {"upstream": "u", "model": "m", "poll_path": "", "images": 1, "now": NOW}
    assert IDS.provider(OWNER, task="x" * 512, **facts) is not None  # type: ignore[arg-type]
    assert IDS.provider(OWNER, task="x" * 513, **facts) is None  # type: ignore[arg-type]
