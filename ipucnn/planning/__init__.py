"""Previews a training: its plan, its stages, and the command that launches it.

Nothing is compiled, downloaded or read. It uses the options and the outline of `training`.
Import `planning.training_plan` and `planning.options`.
"""
