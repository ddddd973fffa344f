"""The command line with the built-in model and everything else real."""

import json
import os
import subprocess
import sys


def test_generate_answers_offline_and_the_same_each_time(tmp_path):
    """Two prompts beside one another, far from the repository, with no network to fall back on."""
    options = ("--json", "--temperature", "0", "--max-tokens", "12")
    done = subprocess.run(
        [sys.executable, "-m", "wheelpit", "generate", *options, "Hello!", "Hello!"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first == second
    assert first["text"].strip()
    assert 1 <= first["completion_tokens"] <= 12
    assert "\ufffd" not in first["text"]
