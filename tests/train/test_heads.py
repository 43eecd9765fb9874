"""The projection head."""

import pytest
import torch

from dinodemo.train.heads import DINOHead


def test_logits_are_cosines_to_the_prototypes():
    head = DINOHead(6, 10, hidden_dim=8, bottleneck_dim=4)
    tokens = torch.randn(5, 3, 6)
    hidden = tokens
    for layer in head.mlp:
        hidden = layer(hidden)
    slow = torch.stack(
        [
            torch.stack([torch.cosine_similarity(row, v, dim=0) for v in head.last_layer.weight_v])
            for row in hidden.reshape(-1, 4)
        ]
    )
    torch.testing.assert_close(head(tokens).reshape(-1, 10), slow, rtol=1e-4, atol=1e-6)


def test_prototypes_of_the_bottleneck_are_the_logits():
    head = DINOHead(6, 10, hidden_dim=8, bottleneck_dim=4)
    z = head.bottleneck(torch.randn(5, 6))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(5))
    assert head.prototypes(z).abs().max() <= 1 + 1e-6


def test_the_length_of_a_prototype_never_learns():
    head = DINOHead(6, 10, hidden_dim=8, bottleneck_dim=4)
    head(torch.randn(5, 6)).square().sum().backward()
    assert "last_layer.weight_g" in head.state_dict()
    names = [name for name, _ in head.named_parameters()]
    assert "last_layer.weight_g" not in names and all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize(("layers", "linear"), [(1, 1), (2, 2), (4, 4)])
def test_number_of_layers(layers, linear):
    head = DINOHead(6, 10, hidden_dim=8, bottleneck_dim=4, nlayers=layers)
    assert sum(isinstance(m, torch.nn.Linear) for m in head.mlp.modules()) == linear
    assert head(torch.randn(2, 6)).shape == (2, 10)


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="nlayers=0"):
        DINOHead(6, 10, nlayers=0)
