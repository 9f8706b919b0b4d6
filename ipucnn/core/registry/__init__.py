"""The registry of plugins: records, hooks, discovery, loading, look-up and listings.

Import `registry.registry` for look-ups and `registry.records` for record types; only `loading` and
`hookspecs` use pluggy.
"""
