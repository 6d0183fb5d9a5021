"""References: converts input images into the form that the contract requires."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.delivery.reference_conversion import ReferenceConversion
from imagegate.delivery.reference_publisher import ReferenceConverter
from imagegate.fitting.reference_rules import AS_OPENAI
from imagegate.ingest.streaming_form import StreamingForm
from imagegate.layers.base import Concern, ExchangeLayer
from imagegate.protocol.messages import Exchange
from imagegate.protocol.references import LINK_FIELDS
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import PROGRESS_KEY


class References(ExchangeLayer):
    """Converts files to links and links to files where the contract takes only the other form.

    Args:
        converter: performs the conversions; None: requests that need one are rejected.
    """

    concern = Concern(members=LINK_FIELDS, references=True)

    def __init__(self, app: ASGIApp, *, prefix: str = "/v1", converter: ReferenceConverter | None = None) -> None:
        super().__init__(app, prefix=prefix)
        self._converter = converter

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        opened: list[Upload] = []
        try:
            work = ReferenceConversion(self._converter, scope, exchange, opened)
            request = exchange.request
            if exchange.target is None or exchange.target.contract is not None:  # an unknown model's stay unchanged
                request = await work.links_of_members(request)
            else:
                await work.check_members(request)
            if isinstance(request.live, StreamingForm) and exchange.reference_rule:
                request.live.expect(exchange.reference_rule, scope[PROGRESS_KEY])
            elif request.images:
                request = await work.convert(request, exchange.reference_rule or AS_OPENAI)
            await self.forward(scope, exchange.replace(request=request), receive, send)
        finally:
            for upload in opened:
                upload.close()
