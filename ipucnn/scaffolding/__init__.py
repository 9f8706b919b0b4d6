"""`ipucnn new-plugin`: writes the distribution, or the file, of a new plugin.

`templates/` has a folder per kind: options, implementation, hook and test.
"""
