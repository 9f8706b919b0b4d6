"""Source text of plugins for the tests of the registry."""

import json
import os
import subprocess
import sys

from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry


def plugin(*records, hook="ipucnn_models", before=""):
    """Source of a plugin module whose hook returns `records`."""
    return (f"import ipucnn\n{before}\n@ipucnn.hookimpl\ndef {hook}():\n"
            f"    return [{', '.join(records)}]\n")


def model(name, aliases=(), **more):
    """Source of a model's record; values are Python objects."""
    fields = "".join(f", {key}={value!r}" for key, value in more.items())
    target = "" if "target" in more else ", target='tinynet:build'"
    return f"ipucnn.ModelSpec(name={name!r}, summary='a net'{target}, aliases={aliases!r}{fields})"


def fresh(**settings):
    """A new registry of everything that is installed."""
    return Registry(PluginSettings(**settings))


def of(rows, distribution):
    """The rows of one distribution."""
    return [r for r in rows if r.provider.distribution == distribution]


def row(rows, distribution):
    """The only row of one distribution."""
    found = of(rows, distribution)
    assert len(found) == 1, found
    return found[0]


def python(code, path="", **environment):
    """Run `code` in a fresh interpreter and return what it printed as JSON."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
    env.update(environment, PYTHONPATH=str(path))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
