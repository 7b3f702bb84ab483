"""Kind of device, system and browser from a user agent: coarse, for tags that send nothing else."""

import re
from functools import lru_cache
from typing import Final

_TABLET: Final = re.compile(
    r"ipad|tablet|kindle|silk(?!.*mobile)|android(?!.*mobile)", re.IGNORECASE
)
_MOBILE: Final = re.compile(r"mobi|iphone|ipod|android|windows phone", re.IGNORECASE)
_SYSTEMS: Final = (
    ("iOS", re.compile(r"iphone|ipad|ipod", re.IGNORECASE)),
    ("Android", re.compile("android", re.IGNORECASE)),
    ("Windows", re.compile("windows", re.IGNORECASE)),
    ("Macintosh", re.compile(r"mac os|macintosh", re.IGNORECASE)),
    ("Chrome OS", re.compile("CrOS")),
    ("Linux", re.compile("linux", re.IGNORECASE)),
)
_BROWSERS: Final = (
    ("Edge", re.compile(r"Edg(e|A|iOS)?/")),
    ("Opera", re.compile(r"OPR/|Opera")),
    ("Samsung Internet", re.compile("SamsungBrowser/")),
    ("Firefox", re.compile(r"Firefox/|FxiOS/")),
    ("Chrome", re.compile(r"Chrome/|CriOS/")),
    ("Safari", re.compile("Safari/")),
)


@lru_cache(maxsize=4096)
def describe(agent: str) -> tuple[tuple[str, str], ...]:
    """Give what a user agent says, as pairs of column and value; unknown parts are left out.

    Examples
    --------
    >>> describe(
    ...     "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148 Safari/604.1"
    ... )
    (('device', 'mobile'), ('os', 'iOS'), ('browser', 'Safari'))
    """
    found = [("os", name) for name, pattern in _SYSTEMS if pattern.search(agent)][:1]
    found += [("browser", name) for name, pattern in _BROWSERS if pattern.search(agent)][:1]
    if not found:
        return ()
    mobile = "mobile" if _MOBILE.search(agent) else "desktop"
    return (("device", "tablet" if _TABLET.search(agent) else mobile), *found)
