"""Who may call what: bearer tokens with two scopes; without tokens, loopback only."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from aiohttp import web

from models.errors import Stop
from streams.addresses import is_loopback
from streams.settings import Settings
from streams.web.problems import Problem
from streams.web.tokens import Scope, Tokens, digest


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the scope granted, and a name for the audit trail that gives no token away."""

    scope: Scope
    name: str


CALLER = web.RequestKey("caller", Caller)


class Gate:
    """Knows the tokens, as digests, and tells callers apart."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = Tokens(settings)

    @property
    def is_open(self) -> bool:
        """Whether no tokens are configured, so that everybody may do everything."""
        return not self._tokens.are_configured

    def caller(self, authorization: str | None) -> Caller | None:
        """Return who sent this ``Authorization`` header, or None if it grants nothing. Takes as long for a wrong token as for a right one."""
        if self.is_open:
            return Caller(Scope.OPERATE, "anonymous")
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given, granted = digest(token.strip()), Scope.OPEN
        for scope, known in self._tokens.known():
            if hmac.compare_digest(given, known):
                granted = max(granted, scope)
        return Caller(granted, f"token {given.hex()[:8]}") if granted > Scope.OPEN else None

    def admit(self, authorization: str | None, needed: Scope) -> Caller:
        """Return the caller if it may make a call that needs this scope.

        Raises:
            Problem: 401 without a good token, 403 with one that grants too little.
        """
        caller = self.caller(authorization)
        if caller is None:
            if needed == Scope.OPEN:
                return Caller(Scope.OPEN, "anonymous")
            error = "" if authorization is None else ', error="invalid_token"'
            raise Problem(
                401, "A bearer token is needed." if authorization is None else "This token is not known.", headers={"WWW-Authenticate": f'Bearer realm="early-kill"{error}'}
            )
        if caller.scope < needed:
            raise Problem(
                403, f"This token does not grant the scope `{needed.name.lower()}`.", headers={"WWW-Authenticate": 'Bearer realm="early-kill", error="insufficient_scope"'}
            )
        return caller


def check_bind(settings: Settings) -> None:
    """Refuse to open the API to others without tokens.

    Raises:
        Stop: The API would listen beyond loopback with no token configured, a token is empty, or a file of tokens cannot be used.
    """
    tokens = settings.api_tokens
    if any(len(token.strip()) == 0 for token in tokens):
        raise Stop("EARLY_KILL_READ_TOKENS and EARLY_KILL_OPERATE_TOKENS must not hold an empty token")
    if not tokens and not is_loopback(settings.web_host):
        raise Stop(f"the API would listen on {settings.web_host} without tokens: set EARLY_KILL_READ_TOKENS and EARLY_KILL_OPERATE_TOKENS, or EARLY_KILL_WEB_HOST=127.0.0.1")
