"""Let pytest find the grading kit, labkit: it is beside this folder or in it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from labkit.plugin import pytest_configure  # noqa: F401
