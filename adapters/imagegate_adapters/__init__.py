"""The providers that imagegate ships: one module of what differs and one TOML of contracts each."""
