"""Scorers that the core can run by itself: tree ensembles and calibration."""

from recoup.models.trees import TreeEnsemble

__all__ = ["TreeEnsemble"]
