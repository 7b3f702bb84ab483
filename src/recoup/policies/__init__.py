"""When to act and which intervention to choose: act, wait or never, with exact propensities."""

from recoup.policies.learner import Learner
from recoup.policies.single import SingleDecider
from recoup.policies.timing import ExpectedNetValue
from recoup.policies.version import Beliefs, Settings

__all__ = ["Beliefs", "ExpectedNetValue", "Learner", "Settings", "SingleDecider"]
