"""What sends requests: aiohttp's `ClientSession`, or any `httpx.AsyncBaseTransport`.

Each module names one HTTP library and uses what it documents; `imagegate.http.HTTPClient` chooses between them.
"""
