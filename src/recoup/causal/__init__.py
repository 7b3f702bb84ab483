"""What acting was worth: estimates that carry their interval."""

from recoup.causal.estimate import Estimate
from recoup.causal.lift import Lift, holdout_lift
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import OffPolicy, evaluate_off_policy, off_policy
from recoup.causal.shrinkage import Shrinkage

__all__ = [
    "Estimate",
    "Lift",
    "LoggedDecisions",
    "OffPolicy",
    "Shrinkage",
    "evaluate_off_policy",
    "holdout_lift",
    "off_policy",
]
