"""How close two ways of computing the same must be."""

import numpy as np


def close(actual, expected, atol=1e-4):
    """Compare arrays by the largest difference."""
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=0)
