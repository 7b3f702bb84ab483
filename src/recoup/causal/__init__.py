"""What acting, waiting and missing were worth: estimates that carry their interval."""

from recoup.causal.adaptive import AdaptiveLog, AdaptiveValues, adaptive_values, anytime_value
from recoup.causal.delay import Delay, Regret, evaluate_delay
from recoup.causal.estimate import Estimate
from recoup.causal.journeys import Journeys, journeys_from_table
from recoup.causal.lift import Lift, holdout_lift
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import OffPolicy, evaluate_off_policy
from recoup.causal.policy_search import Found, search_policies, start_and_states
from recoup.causal.shrinkage import Shrinkage
from recoup.causal.uplift import Experiment, Targeting, Uplift, judge_targeting, learn_uplift
from recoup.causal.uplift_curves import curve, mean_uplift, uplift_area, uplift_at

__all__ = [
    "AdaptiveLog",
    "AdaptiveValues",
    "Delay",
    "Estimate",
    "Experiment",
    "Found",
    "Journeys",
    "Lift",
    "LoggedDecisions",
    "OffPolicy",
    "Regret",
    "Shrinkage",
    "Targeting",
    "Uplift",
    "adaptive_values",
    "anytime_value",
    "curve",
    "evaluate_delay",
    "evaluate_off_policy",
    "holdout_lift",
    "journeys_from_table",
    "judge_targeting",
    "learn_uplift",
    "mean_uplift",
    "search_policies",
    "start_and_states",
    "uplift_area",
    "uplift_at",
]
