"""Who a visitor is: the user once known, else the client; a login links them from then on."""

from collections import OrderedDict
from typing import Final

MAX_CLIENTS: Final = 1 << 20
"""Clients remembered; beyond it the one seen longest ago is forgotten."""


class Links:
    """A fold that remembers which user a client belongs to, in the order of arrival.

    Events before the login keep the client as their visitor.

    Examples
    --------
    >>> links = Links()
    >>> [links.visitor(user, "c") for user in (None, "ada", None)]
    ['c', 'ada', 'ada']
    """

    def __init__(self, *, max_clients: int = MAX_CLIENTS) -> None:
        self._users: OrderedDict[str, str] = OrderedDict()
        self._max_clients = max_clients

    def visitor(self, user: str | None, client: str | None) -> str | None:
        """Give the visitor of an event, and remember who its client is."""
        if client is None:
            return user
        if user is None:
            known = self._users.get(client)
            if known is None:
                return client
            user = known
        self._users[client] = user
        self._users.move_to_end(client)
        if len(self._users) > self._max_clients:
            self._users.popitem(last=False)
        return user
