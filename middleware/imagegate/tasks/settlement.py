"""What a task has cost that this process took over: the provider's own word on a reservation of another one."""

from __future__ import annotations

from imagegate.spending.service import Spending
from imagegate.tasks.records import TaskRecord


async def settle_task(spending: Spending, record: TaskRecord) -> None:
    """Settle or release what was reserved for a task that has ended; what stays uncertain stays held."""
    if record.provider is None:
        return
    outcome = ""
    if record.state == "failed":
        outcome = (record.error or {}).get("imagegate", {}).get("outcome", "uncertain")
    usage = record.facts.get("usage")
    await spending.end_task(
        record.number,
        record.provider.upstream,
        record.model,
        images=len(record.data),
        usage=usage if isinstance(usage, dict) else None,
        outcome=outcome,
    )
