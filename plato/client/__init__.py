"""Clients: of a server over HTTP, and of a runtime in this process, with one way to ask.

`connection` is HTTP, errors and server-sent events; `server` and `runs` are what a server has.
`blocking` calls all of it from ordinary code. It needs neither torch nor Ray.
"""

from plato.client.answer import Answer, Asker, Question, Update
from plato.client.blocking import BlockingAsker, Client, Runs
from plato.client.errors import UnreachableError
from plato.client.local import LocalClient
from plato.client.runs import AsyncRuns, RunUpdate
from plato.client.server import DEFAULT_URL, AsyncClient

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "Asker",
    "AsyncClient",
    "AsyncRuns",
    "BlockingAsker",
    "Client",
    "LocalClient",
    "Question",
    "RunUpdate",
    "Runs",
    "UnreachableError",
    "Update",
]
