"""What programs send is checked before it is believed."""

import base64
from pathlib import Path

import pytest

from dinodemo.web import api_values as values
from dinodemo.web.services import Services
from dinodemo.web.settings import Settings

NO_NUMBERS = [float("nan"), float("inf"), -1, 1e9, "1", None, True, [1], {}]


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """Give the folder that uploads land in, with one of them."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "a.txt").write_bytes(b"hello")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return tmp_path / "uploads"


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_no_number_in_range(value):
    with pytest.raises(ValueError, match=r"^mass must be a number from 0\.001 to 1, got "):
        values.check_float(value, "mass", 0.001, 1)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 224.5, 0], ids=repr)
def test_no_whole_number_in_range(value):
    with pytest.raises(ValueError, match=r"^resolution must be a whole number from 56 to 1022, got "):
        values.check_backbone(Services(Settings(), None), "", value)


def test_a_whole_number_may_come_with_a_point():
    assert values.check_int(224.0, "resolution", 56, 1022) == 224


@pytest.mark.parametrize("name", ["/etc", "..", "facebook/dinov2-small", None, 3, ["dinov2-small"]], ids=repr)
def test_only_backbones_of_the_table_can_be_asked_for(name):
    services = Services(Settings(backbone="/my/own/run"), None)
    assert values.check_backbone(services, "", 224) == ("/my/own/run", 224)
    with pytest.raises(ValueError, match=r"^backbone must be one of dinov2"):
        values.check_backbone(services, name, 224)


@pytest.mark.parametrize("value", ["yes", 1, None], ids=repr)
def test_no_truth(value):
    with pytest.raises(ValueError, match="smooth must be true or false"):
        values.check_bool(value, "smooth")


@pytest.mark.parametrize("value", [None, 3, "x" * 1001], ids=["none", "number", "long"])
def test_no_text(value):
    with pytest.raises(ValueError, match="path must be a text") as caught:
        values.check_str(value, "path")
    assert len(str(caught.value)) < 150


def test_lists():
    assert values.check_strs(None, "labels") == [] == values.read_files(None, "photos", 3)
    for wrong in ("cat", {"a": 1}, [3]):
        with pytest.raises(ValueError, match="labels must be"):
            values.check_strs(wrong, "labels")
    for wrong in ("cat", [], [{}] * 4):
        with pytest.raises(ValueError, match="photos must be a list of 1 to 3 files"):
            values.read_files(wrong, "photos", 3, least=1)


def test_only_uploads_are_read(uploads):
    assert values.read_path({"path": str(uploads / "a.txt")}, "photo").read_bytes() == b"hello"
    paths = ["/etc/passwd", str(uploads.parent / "secret.txt"), str(uploads / ".." / "secret.txt"), "a\0b", "", 3, None]
    for wrong in [*paths, *({"path": path} for path in paths)]:
        with pytest.raises(ValueError, match="photo must be an uploaded file"):
            values.read_path(wrong, "photo")
    with pytest.raises(ValueError, match="did not arrive"):
        values.read_path({"path": str(uploads / "gone.txt")}, "photo")


def test_names_lose_their_folders(uploads):
    path = Path("/uploads/blob")
    assert values.name_of({"path": "x", "orig_name": "../../trip/cat.jpg"}, path) == "cat.jpg"
    assert values.name_of({"path": "x", "orig_name": ""}, path) == values.name_of("data:", path) == "blob"


def test_files_may_come_by_address(uploads, monkeypatch):
    data = "data:text/plain;base64," + base64.b64encode(b"hello").decode()
    assert values.read_path(data, "photo").read_bytes() == b"hello"
    with pytest.raises(ValueError, match="no base64 data: address"):
        values.read_path("data:text/plain;base64,%%%", "photo")
    monkeypatch.setattr("gradio.processing_utils.ssrf_protected_download", lambda url, folder: str(uploads / "a.txt"))
    assert values.read_path("https://example.org/a.txt", "photo").read_bytes() == b"hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]"])
def test_addresses_of_this_machine_and_its_network_are_not_fetched(host, uploads):
    with pytest.raises(ValueError, match="cannot be fetched"):
        values.read_path(f"http://{host}/a.txt", "photo")
