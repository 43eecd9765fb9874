import pytest
from huggingface_hub import constants

from dinodemo.backbones import OFFLINE_DEFAULT, offline

from .hub_samples import FILES, SMALL
from .hub_server import serve
from .test_registry import write_model


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


@pytest.fixture
def small(hub):
    """Offer the default backbone."""
    hub.put(SMALL, FILES)
    return hub


@pytest.fixture
def offline_default(weights_folder):
    """Put something into the place of the offline default."""
    return write_model(weights_folder / OFFLINE_DEFAULT)


@pytest.fixture
def built(weights_folder, monkeypatch):
    """Build the offline default at once; gives the names that were built."""
    names = []
    monkeypatch.setattr(offline, "build", lambda name: names.append(name) or write_model(weights_folder / name))
    return names
