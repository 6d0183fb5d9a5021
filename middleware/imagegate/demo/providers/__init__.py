"""Local stand-ins for the five providers, written from their contracts and without the gateway's code."""
