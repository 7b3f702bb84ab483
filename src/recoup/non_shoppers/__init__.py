"""Who is no shopper: bots, monitors, staff and test orders, by declared rules and by behaviour."""

from recoup.non_shoppers.recogniser import Counted, NonShoppers, Recognised
from recoup.non_shoppers.rules import KINDS, Behaviour, Rule, Rules, parse_rules

__all__ = [
    "KINDS",
    "Behaviour",
    "Counted",
    "NonShoppers",
    "Recognised",
    "Rule",
    "Rules",
    "parse_rules",
]
