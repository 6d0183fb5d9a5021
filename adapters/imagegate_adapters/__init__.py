"""The providers that imagegate ships: one module of what differs and one TOML of contracts each.

They use `imagegate.adapter` as any adapter elsewhere does, and are found by their entry points.
"""
