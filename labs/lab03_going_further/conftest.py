"""Let pytest find the grading kit, labkit: it is in this folder or beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from labkit.plugin import pytest_configure  # noqa: F401
