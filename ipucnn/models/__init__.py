"""Models: construction, modification, tracing, and loading of weights.

A library for jobs and plugins; it imports torch and depends on no job.
Import `models.build`, `models.surgery`, `models.tracing`, `models.weights`.
"""
