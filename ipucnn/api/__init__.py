"""The public Python API; `ipucnn` imports it from here on first use.

`jobs` has the functions that train, run and export, `objects` those that return models and
datasets, `data_tools` those of `ipucnn data`.
"""
