"""What a task has cost that this process has ended, and another one had begun."""

from __future__ import annotations

from imagegate.spending.service import Spending
from imagegate.tasks.records import TaskRecord
from imagegate.telemetry.progress import Progress


async def settle_task(spending: Spending, record: TaskRecord, progress: Progress) -> None:
    """Settle, release or hold what was reserved for a task that has ended, or is over before it was sent.

    Args:
        progress: of the end: whether the provider has said that it made the images, which may have been withheld or
            lost since.
    """
    provider = record.provider
    if progress.task_made is not None and provider is not None:
        images, usage = progress.task_made
        await spending.settle_task(
            record.number,
            provider.upstream,
            provider.model,
            images=images,
            usage=usage,
            fields=provider.fields,
            references=provider.references,
            is_free=provider.is_own_key,
        )
        return
    is_free = record.state == "queued" or (provider is not None and provider.is_own_key)
    outcome = (record.error or {}).get("imagegate", {}).get("outcome", "uncertain")
    if is_free or outcome in ("not_sent", "rejected"):
        await spending.release_task(record.number)
    else:
        await spending.hold_task(record.number)
