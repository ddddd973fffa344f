"""Where a model comes from, with a stand-in for the hub."""

import socket
import subprocess
import sys

import pytest

from tests.models.fake_hub import FakeHub
from wheelpit.errors import ModelLoadError
from wheelpit.models import source
from wheelpit.models.source import resolve_model

REPO = "someone/some-model"
FILES = {
    "README.md": b"# Some model",
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"weights" * 100,
    "pytorch_model.bin": b"the same again",
    "original/consolidated.safetensors": b"and again",
    "onnx/config.json": b"{}",
}


@pytest.fixture
def hub():
    server = FakeHub(REPO, dict(FILES))
    yield server
    server.close()


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_builtin_is_the_packaged_folder(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(source, "BUILTIN_FOLDER", tmp_path)
    assert resolve_model("builtin") == tmp_path


def test_an_installation_without_the_builtin_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BUILTIN_FOLDER", tmp_path)
    with pytest.raises(ModelLoadError, match="lacks the built-in model"):
        resolve_model("builtin")


def test_an_existing_folder_is_itself(tmp_path, monkeypatch):
    assert resolve_model(str(tmp_path)) == tmp_path
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/name").resolve() == (tmp_path / "org" / "name")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    assert resolve_model("~/models") == tmp_path / "models"


def test_a_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="is a file, not a model"):
        resolve_model(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./x", "../x", "~/x/y", "a/b/c", "m.gguf", ""])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match="does not exist: give an existing folder"):
        resolve_model(name)


def test_a_hub_model_is_downloaded_without_what_is_not_needed(hub, tmp_path):
    folder = resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path))
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert (folder / "chat_template.jinja").exists()
    assert sorted(hub.downloads) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_a_second_time_nothing_is_downloaded(hub, tmp_path):
    first = resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path))
    hub.downloads.clear()
    assert resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path)) == first
    assert hub.downloads == []


def test_a_downloaded_model_is_found_without_the_hub(hub, tmp_path):
    first = resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path))
    offline = f"http://127.0.0.1:{closed_port()}"
    assert resolve_model(REPO, endpoint=offline, download_dir=str(tmp_path)) == first


def test_an_unreachable_hub_is_reported_with_the_way_out(tmp_path):
    offline = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(ModelLoadError, match=r"cannot download .*network.* builtin") as got:
        resolve_model(REPO, endpoint=offline, download_dir=str(tmp_path))
    assert "\n" not in str(got.value)


def test_an_unknown_model_is_reported(hub, tmp_path):
    with pytest.raises(ModelLoadError, match="neither a folder here nor a model on the hub"):
        resolve_model("someone/else", endpoint=hub.url, download_dir=str(tmp_path))


def test_an_unknown_revision_is_reported(hub, tmp_path):
    with pytest.raises(ModelLoadError, match="has no revision 'v9'"):
        resolve_model(REPO, revision="v9", endpoint=hub.url, download_dir=str(tmp_path))


def test_a_gated_model_says_how_to_get_in(hub, tmp_path):
    hub.is_gated = True
    with pytest.raises(ModelLoadError, match="is gated: accept its conditions"):
        resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path))


def test_a_repository_without_a_config_is_not_a_model(hub, tmp_path):
    del hub.files["config.json"], hub.files["onnx/config.json"]
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path))


def test_a_name_no_hub_would_take_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match="neither a folder nor a valid hub id"):
        resolve_model("bad--name", download_dir=str(tmp_path))


def test_a_folder_that_cannot_be_written_is_named(hub, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelLoadError, match=f"cannot store {REPO} in .*file"):
        resolve_model(REPO, endpoint=hub.url, download_dir=str(tmp_path / "file"))


def test_the_hub_client_is_imported_only_for_downloads():
    code = (
        "import sys; from wheelpit.models.source import resolve_model; resolve_model('/tmp');"
        "sys.exit('huggingface_hub' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
