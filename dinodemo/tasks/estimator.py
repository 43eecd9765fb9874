"""Parameters of estimators, read and set as scikit-learn does."""

import inspect
from typing import Any, Self


class Estimator:
    """What every estimator can: `__init__` only stores its parameters, learned attributes end in an underscore."""

    @classmethod
    def _parameters(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, as they were given to the constructor.

        Args:
            deep: for scikit-learn's sake; no parameter is an estimator itself.
        """
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name and return self; what was learned stays until the next fit.

        Raises:
            ValueError: for a name that is no parameter.
        """
        if unknown := sorted(set(params) - set(self._parameters())):
            names = ", ".join(self._parameters())
            raise ValueError(f"{type(self).__name__} has no parameter {unknown[0]!r}; it has {names}")
        for name, value in params.items():
            setattr(self, name, value)
        return self
