"""What the network of an engine was asked for."""

import pytest

from dinodemo.backbones.network import VisionTransformer


@pytest.fixture
def runs(monkeypatch):
    """Record the batch sizes that the network gets; `runs.before` is called before each of them."""
    real = VisionTransformer.__call__

    class Runs(list):
        before = staticmethod(lambda images: None)

    recorded = Runs()

    def call(self, images, *args, **options):
        recorded.append(len(images))
        recorded.before(images)
        return real(self, images, *args, **options)

    monkeypatch.setattr(VisionTransformer, "__call__", call)
    return recorded
