"""The OpenAI Images protocol: requests, replies, errors, encodings and parsers.

Pure: no event loop, file or socket; imports nothing but `contracts` and `errors`.
"""
