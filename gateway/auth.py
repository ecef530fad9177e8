"""Bearer tokens (RFC 6750) for those who may watch."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from broadcaster.errors import UnauthorizedError


class Tokens:
    """The accepted tokens; none means that everybody may watch."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def check(self, authorization: Sequence[str]) -> None:
        """Raise UnauthorizedError unless the one `Authorization` header among the request's carries a token of ours.

        Every token is compared in constant time, so that the time of the answer tells nothing about any of them.
        """
        if not self._tokens:
            return
        scheme, _, given = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        found = False
        for token in self._tokens:
            found |= hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token)
        if scheme.lower() != "bearer" or not found:
            raise UnauthorizedError(
                "Send the header 'Authorization: Bearer TOKEN' with a token that this server knows."
            )
