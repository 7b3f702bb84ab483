"""What acting, waiting and missing were worth: estimates that carry their interval."""

from recoup.causal.adaptive import AdaptiveLog, AdaptiveValues, adaptive_values, anytime_value
from recoup.causal.arms import ArmMean, Comparison, Sums, compare_arms
from recoup.causal.assignment import Assigned, Layer, Trial, switchback
from recoup.causal.choices import Choices, choice_policy, choices_from_table
from recoup.causal.delay import Delay, Regret, evaluate_delay
from recoup.causal.delay_by_action import ActionDelay, evaluate_delay_by_action
from recoup.causal.distal import dcee
from recoup.causal.estimate import Estimate
from recoup.causal.excursion import Coefficient, Excursion, emee, wcls
from recoup.causal.experiment import ExperimentResult, Rules, evaluate_experiment
from recoup.causal.experiment_metrics import Metric
from recoup.causal.experiment_plan import ExperimentPlan, plan_experiment
from recoup.causal.holdout import Lift, holdout_lift
from recoup.causal.incidents import Incident, IncidentCost, incident_cost
from recoup.causal.journeys import Journeys, journeys_from_table
from recoup.causal.lift import LiftReport, lift_report
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import OffPolicy, evaluate_off_policy
from recoup.causal.policy_search import Found, search_policies, start_and_states
from recoup.causal.policy_value import PolicyValue, evaluate_policy
from recoup.causal.sample_ratio import SampleRatio, check_sample_ratio
from recoup.causal.session_table import episodes, session_table
from recoup.causal.shrinkage import Shrinkage
from recoup.causal.switchback_design import evaluate_switchback, plan_switchback
from recoup.causal.uplift import Experiment, Targeting, Uplift, judge_targeting, learn_uplift
from recoup.causal.uplift_curves import curve, mean_uplift, uplift_area, uplift_at

__all__ = [
    "ActionDelay",
    "AdaptiveLog",
    "AdaptiveValues",
    "ArmMean",
    "Assigned",
    "Choices",
    "Coefficient",
    "Comparison",
    "Delay",
    "Estimate",
    "Excursion",
    "Experiment",
    "ExperimentPlan",
    "ExperimentResult",
    "Found",
    "Incident",
    "IncidentCost",
    "Journeys",
    "Layer",
    "Lift",
    "LiftReport",
    "LoggedDecisions",
    "Metric",
    "OffPolicy",
    "PolicyValue",
    "Regret",
    "Rules",
    "SampleRatio",
    "Shrinkage",
    "Sums",
    "Targeting",
    "Trial",
    "Uplift",
    "adaptive_values",
    "anytime_value",
    "check_sample_ratio",
    "choice_policy",
    "choices_from_table",
    "compare_arms",
    "curve",
    "dcee",
    "emee",
    "episodes",
    "evaluate_delay",
    "evaluate_delay_by_action",
    "evaluate_experiment",
    "evaluate_off_policy",
    "evaluate_policy",
    "evaluate_switchback",
    "holdout_lift",
    "incident_cost",
    "journeys_from_table",
    "judge_targeting",
    "learn_uplift",
    "lift_report",
    "mean_uplift",
    "plan_experiment",
    "plan_switchback",
    "search_policies",
    "session_table",
    "start_and_states",
    "switchback",
    "uplift_area",
    "uplift_at",
    "wcls",
]
