"""What followed: the outcomes of decisions, and the carts that were left."""

from recoup.outcomes.abandonment import ABANDONMENT_SCHEMA, STEPS, Abandonment, Carts
from recoup.outcomes.join import Cost, Followed, OutcomeJoin

__all__ = [
    "ABANDONMENT_SCHEMA",
    "STEPS",
    "Abandonment",
    "Carts",
    "Cost",
    "Followed",
    "OutcomeJoin",
]
