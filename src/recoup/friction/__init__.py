"""What stands between a shopper and the purchase: intent, signals, and the moment of both."""

from recoup.friction.intent import IntentModel
from recoup.friction.intent_rows import Period
from recoup.friction.moment import Moment
from recoup.friction.signals import SIGNALS, detect_signals
from recoup.friction.stage_rates import StageRates

__all__ = [
    "SIGNALS",
    "IntentModel",
    "Moment",
    "Period",
    "StageRates",
    "detect_signals",
]
