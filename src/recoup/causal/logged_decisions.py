"""A log of decisions with propensities, as columns."""

import msgspec
import numpy as np

from recoup.causal.estimate import Floats, Ints
from recoup.errors import ConfigError, SchemaError


class LoggedDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a log of decisions, each of shape (n,) and type float64.

    Parameters
    ----------
    quality, value
        A model's value of the logged action and of the target policy: both, or neither.
    cluster
        Codes 0..k-1 of what is drawn independently.

    Examples
    --------
    >>> half = np.full(2, 0.5)
    >>> LoggedDecisions(reward=np.ones(2), propensity=half, target=half).weights
    array([1., 1.])
    """

    reward: Floats
    propensity: Floats
    target: Floats
    quality: Floats | None = None
    value: Floats | None = None
    cluster: Ints | None = None

    def __post_init__(self) -> None:
        if (self.quality is None) != (self.value is None):
            raise ConfigError(
                "Expected a model's value of the logged action and of the target policy, got one",
                hint="pass both, or neither",
            )
        lengths = {len(c) for c in (self.reward, self.propensity, self.target, *self.model)}
        if lengths == {0} or len(lengths - {0}) != 1:
            raise SchemaError(f"Expected columns of one positive length, got lengths {lengths}")

    @property
    def model(self) -> tuple[Floats, Floats]:
        """Quality and value, or two empty arrays."""
        if self.quality is None or self.value is None:
            return np.empty(0), np.empty(0)
        return self.quality, self.value

    @property
    def weights(self) -> Floats:
        """Target probability over propensity, shape (n,)."""
        return self.target / self.propensity
