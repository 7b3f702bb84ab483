"""What is wrong, where, since when and what it costs: evidence, localisation and ranking."""

from recoup.defects.catalogue import DEFECT_TYPES, UNEXPLAINED_DROP, DefectType
from recoup.defects.evidence import Evidence
from recoup.defects.ranking import Ranking

__all__ = ["DEFECT_TYPES", "UNEXPLAINED_DROP", "DefectType", "Evidence", "Ranking"]
