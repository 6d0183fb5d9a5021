"""Local stand-ins for providers, written from their contracts and without the gateway's code.

Each module is one provider; `local_providers` of `imagegate.demo.servers` starts them.
"""
