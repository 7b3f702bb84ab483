"""What acting, waiting and missing were worth: estimates that carry their interval."""

from recoup.causal.adaptive import AdaptiveLog, AdaptiveValues, adaptive_values, anytime_value
from recoup.causal.delay import Delay, Regret, evaluate_delay
from recoup.causal.estimate import Estimate
from recoup.causal.journeys import Journeys, journeys_from_table
from recoup.causal.lift import Lift, holdout_lift
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import OffPolicy, evaluate_off_policy
from recoup.causal.shrinkage import Shrinkage

__all__ = [
    "AdaptiveLog",
    "AdaptiveValues",
    "Delay",
    "Estimate",
    "Journeys",
    "Lift",
    "LoggedDecisions",
    "OffPolicy",
    "Regret",
    "Shrinkage",
    "adaptive_values",
    "anytime_value",
    "evaluate_delay",
    "evaluate_off_policy",
    "holdout_lift",
    "journeys_from_table",
]
