"""Who a request is from and what they may do: principals, and the sources that know them.

Nothing here knows a layer, the configuration or a provider; the gateway puts sources together from its configuration.
"""
