import pytest
from huggingface_hub import constants

from .hub_server import serve


@pytest.fixture
def hub(tmp_path, monkeypatch, weights_folder):
    """Run a hub of this test's own, with an empty cache; the client that asks it is the real one."""
    with serve() as hub:
        cache = tmp_path / "cache"
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
        yield hub
