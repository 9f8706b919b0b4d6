"""Reads networks from ONNX files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Optional, Tuple

import torch

from ipucnn.core.errors import DataError, PluginError, UnavailableError, UsageError
from ipucnn.core.files import read_limited
