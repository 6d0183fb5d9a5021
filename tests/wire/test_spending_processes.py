"""Budgets that several processes share, with faults, a process that is killed and a Redis that forgets: a short form.

`tests.wire.spending_run` says how the long one is run.
"""

from __future__ import annotations

import shutil

import pytest
from tests.wire.spending_run import Plan, check, run

pytestmark = [pytest.mark.server, pytest.mark.postgres, pytest.mark.redis]


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_the_ledger_covers_the_bill() -> None:
    result = run(Plan(processes=2, keys=4, requests=120, at_a_time=40, budget=10))
    check(result)
    assert result.statuses[200] > 10
    assert result.statuses[402] > 10
    assert result.held


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_crowd_on_a_budget_for_forty() -> None:
    """Exactly forty reach the provider, whichever process is asked."""
    plan = Plan(processes=2, keys=1, requests=200, at_a_time=200, budget=40, images=(1,), faults=0.0, trouble=False)
    result = run(plan)
    check(result)
    assert (result.statuses[200], sum(result.billed.values()), len(result.held)) == (40, 40, 0)
