from ipucnn.testing.fixtures import fake_distribution  # noqa: F401
