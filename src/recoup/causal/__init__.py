"""What acting was worth: estimates that carry their interval."""

from recoup.causal.lift import Lift, holdout_lift

__all__ = ["Lift", "holdout_lift"]
