"""Injection: known defects put into a real log, which stays a log of its own format."""

from recoup.injection.inject import inject_log
from recoup.injection.spec import InjectionSpec, load_spec, parse_spec

__all__ = ["InjectionSpec", "inject_log", "load_spec", "parse_spec"]
