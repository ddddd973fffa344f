"""The wheel has everything in it and works where there is no source."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), ".")
    [path] = folder.glob("wheelpit-*.whl")
    return path


def test_the_wheel_is_for_every_system(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_has_the_model_the_types_and_the_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "wheelpit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for file in MODEL_FILES:
        assert f"wheelpit/builtin/{file}" in names
    assert "wheelpit/cli/main.py" in names
    for file in ("cpu.cpp", "draws.cpp", "numbers.h"):
        assert f"wheelpit/kernels/{file}" in names


def test_the_wheel_has_nothing_of_the_repository_around_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith(("wheelpit/", "wheelpit-")) for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".log"))]


def test_the_wheel_works_in_an_empty_folder(wheel, tmp_path):
    """Installed on its own, run from elsewhere: nothing may be read from the repository."""
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import wheelpit; from wheelpit.models.source import resolve_model\n"
        "from wheelpit.text.tokenizer import Tokenizer\n"
        "folder = resolve_model('builtin'); tokenizer = Tokenizer.from_folder(folder)\n"
        "assert tokenizer.decode(tokenizer.encode('Hello!')) == 'Hello!'\n"
        "assert tokenizer.chat_template\n"
        "from wheelpit.cli.main import main\n"
        "print(wheelpit.__file__, folder, sep='\\n'); main(['version'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        capture_output=True,
        text=True,
        check=False,
        cwd=elsewhere,
    )
    assert done.returncode == 0, done.stderr
    package, folder, version = done.stdout.splitlines()[:3]
    assert Path(package).is_relative_to(target)
    assert Path(folder).is_relative_to(target)
    assert version.startswith("wheelpit ")
