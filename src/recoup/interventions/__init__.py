"""What can be done for a shopper who met a defect, what it costs, and who may have it."""

from recoup.interventions.catalogue import (
    HESITATES,
    INTERVENTIONS,
    UNEXPLAINED,
    Intervention,
    best_for,
    intervention,
)
from recoup.interventions.eligibility import Limits, eligible

__all__ = [
    "HESITATES",
    "INTERVENTIONS",
    "UNEXPLAINED",
    "Intervention",
    "Limits",
    "best_for",
    "eligible",
    "intervention",
]
