"""Recoup: find what spoils a shop's visits, and act while the sale can still be saved."""

__version__ = "0.1.0"
