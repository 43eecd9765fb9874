"""Parameters of all estimators, as scikit-learn's tools ask for them."""

import inspect

import pytest
from sklearn.base import clone

from dinodemo import DepthProbe, PatchPCA, ReferenceSegmenter, SegmentationHead

OTHER = {
    PatchPCA: {"n_components": 5},
    DepthProbe: {"epochs": 7},
    SegmentationHead: {"seed": 3},
    ReferenceSegmenter: {"threshold": 0.7},
}


def make(kind, **params):
    return kind(None, **params) if kind is ReferenceSegmenter else kind(**params)


@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.__name__)
def test_parameters_are_what_the_constructor_was_given(kind):
    made = make(kind, **OTHER[kind])
    assert list(made.get_params()) == list(inspect.signature(kind).parameters)
    assert made.get_params().items() >= OTHER[kind].items()
    assert clone(made).get_params() == made.get_params() and clone(made) is not made
    fresh = make(kind).set_params(**OTHER[kind])
    assert fresh.get_params() == made.get_params()


@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.__name__)
def test_a_parameter_that_does_not_exist_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} has no parameter 'colour'"):
        make(kind).set_params(colour=1)
