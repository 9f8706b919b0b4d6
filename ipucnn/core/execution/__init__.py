"""The execution model: plans, backends and their sessions, losses, instances, selection.

Backends implement these interfaces and jobs call them. Import the module of the interface.
"""
