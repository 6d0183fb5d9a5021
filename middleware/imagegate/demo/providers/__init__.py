"""Local stand-ins for providers, written from their contracts and without the gateway's code."""
