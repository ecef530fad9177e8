"""One viewer's connection: its credentials, its addresses, its DTLS handshake and its end."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from broadcaster.errors import OfferError
from workers.transport import records
from workers.transport.aiortc_compat import FINGERPRINT_ALGORITHMS
from workers.transport.dtls import DtlsServer, SrtpKeys
from workers.transport.path import Address, Path
from workers.transport.receive import PlainChecks

if TYPE_CHECKING:
    from workers.forward.inbox import Inbox
    from workers.transport.mux import Mux
    from workers.transport.stun import BindingRequest

_logger = logging.getLogger(__name__)

_UFRAG_SIZE = 6
_PASSWORD_SIZE = 18
"""Bytes. RFC 8445, section 5.3 wants 128 bits at least, these are 144."""
_TCP_GRACE = 5.0
"""Seconds that a viewer has to come back when the TCP connection in use was hung up."""

State = Literal["new", "checking", "connecting", "connected", "closed"]


def _random(size: int) -> str:
    """Base64's characters are those of ICE (RFC 8839, section 5.4)."""
    return base64.b64encode(secrets.token_bytes(size)).decode()


class PeerTransport:
    """A viewer on the worker's port, from the answer to the end. Made by `Endpoint.accept`.

    `state`: new (no authentic check yet), checking (the viewer's address is known), connecting (DTLS), connected,
    closed.
    """

    __slots__ = (
        "_consents",
        "_dtls",
        "_mux",
        "_nomination",
        "_on_closed",
        "_on_connected",
        "_on_rtcp",
        "_passwords",
        "_records",
        "_records_until",
        "_remote_fingerprint",
        "_seen",
        "addresses",
        "deadline",
        "on_heard",
        "on_moved",
        "password",
        "path",
        "state",
        "ufrag",
    )

    def __init__(
        self,
        mux: Mux,
        remote_fingerprint: tuple[str, str],
        on_connected: Callable[[SrtpKeys], None],
        on_rtcp: Callable[[bytes], None],
        on_closed: Callable[[str], None],
    ) -> None:
        algorithm = remote_fingerprint[0].lower()
        if algorithm not in FINGERPRINT_ALGORITHMS:
            known = ", ".join(sorted(FINGERPRINT_ALGORITHMS))
            raise OfferError(f"a=fingerprint uses {algorithm}: offer one of {known}")
        self._mux = mux
        self._remote_fingerprint = (algorithm, remote_fingerprint[1])
        self._on_connected = on_connected
        self._on_rtcp = on_rtcp
        self._on_closed = on_closed
        self._dtls: DtlsServer | None = None
        self._records = 0
        self._records_until = 0.0
        self._consents = True
        self._nomination = -1
        self._passwords: dict[bytes, bytes] = {}
        self._seen: deque[bytes] = deque(maxlen=mux.settings.remembered_checks)
        self.addresses: dict[Address, None] = {}
        """Where authentic checks came from, the oldest first."""
        self.path: Path | None = None
        self.on_heard: Callable[[], None] = _nothing
        self.on_moved: Callable[[Path], None] = _ignored
        """Called when the viewer is reached another way than before."""
        self.state: State = "new"
        self.ufrag = ""
        self.password = ""
        self.deadline = _now() + mux.settings.connect_timeout
        self.restart()

    def restart(self) -> tuple[str, str]:
        """An ICE restart (RFC 8445, section 9): a new (ufrag, password).

        The pair before stays valid until the first check with the new one.
        """
        for ufrag in list(self._passwords)[:-1]:
            self._forget_ufrag(ufrag)
        self.ufrag, self.password = _random(_UFRAG_SIZE), _random(_PASSWORD_SIZE)
        ufrag = self.ufrag.encode()
        self._passwords[ufrag] = self.password.encode()
        self._mux.by_ufrag[ufrag] = self
        self._delegate()
        return self.ufrag, self.password

    def listen(self, open_inbox: Callable[[], Inbox], on_heard: Callable[[], None]) -> None:
        """From now on RTCP over UDP goes into an inbox instead of to `on_rtcp`, where the kernel receives; elsewhere
        nothing changes. `on_heard` is called when something in there is urgent; the rest waits until somebody looks.
        """
        self.on_heard = on_heard
        self._mux.receiver.listen(self, open_inbox)
        self._delegate()

    def alive(self) -> None:
        """The RTCP just handed over decrypts: the viewer still wants what we send.

        Only where that goes: who sends from one address cannot keep media flowing to another (RFC 7675).
        """
        if self._consents:
            self.deadline = max(self.deadline, _now() + self._mux.settings.consent_timeout)

    def close(self, reason: str = "closed") -> None:
        """End the connection: DTLS close_notify, then `on_closed(reason)`. Later calls do nothing."""
        if self.state == "closed":
            return
        if self.state != "connected":
            self._mux.connecting -= 1
        self.state = "closed"
        if self._dtls is not None:
            self._dtls.shutdown()
            self._dtls = None
        for ufrag in list(self._passwords):
            self._forget_ufrag(ufrag)
        self._mux.forget(self)
        try:
            self._on_closed(reason)
        except Exception:
            _logger.exception("the end of a viewer's connection could not be handled")

    # What follows is called by the mux.

    def password_of(self, ufrag: bytes) -> bytes:
        return self._passwords[ufrag]

    def has_seen(self, transaction: bytes) -> bool:
        return transaction in self._seen or self._mux.receiver.has_seen(self, transaction)

    def is_at(self, path: Path) -> bool:
        """Whether this peer is reached at the address of `path` at the moment."""
        return self.path is not None and self.path.address == path.address

    def checked(self, request: BindingRequest, path: Path) -> None:
        """An authentic check came in over `path`."""
        settings = self._mux.settings
        self._seen.append(request.transaction)
        if len(self._passwords) > 1 and request.ufrag == self.ufrag.encode():
            for ufrag in [ufrag for ufrag in self._passwords if ufrag != request.ufrag]:
                self._forget_ufrag(ufrag)
            self._nomination = -1
        if path.address not in self.addresses:
            self._learn(path.address)
        if self.path is None or (request.use_candidate and request.nomination >= self._nomination):
            self._nomination = max(self._nomination, request.nomination)
            if not path.is_same(self.path):
                self.path = path
                self.on_moved(path)
        if self.state == "connected" and self.is_at(path):
            self.deadline = _now() + settings.consent_timeout
        if self.state == "new":
            self.state = "checking"
        self._delegate()

    def records(self, data: bytes) -> None:
        """DTLS from an address that is ours."""
        data = records.permitted(data, established=self.state == "connected")
        if not data or not self._may_speak():
            self._mux.statistics.dtls_dropped += 1
            return
        if self._dtls is None:
            self._dtls = DtlsServer(
                self._mux.certificate, self._remote_fingerprint, self._send, self._connected, self.close
            )
            self.state = "connecting"
        self._dtls.feed(data)

    def media(self, data: bytes, path: Path) -> None:
        """SRTP or SRTCP from an address that is ours; a viewer sends RTCP only (told apart as in RFC 5761)."""
        if self.state == "connected" and len(data) > 1 and 192 <= data[1] <= 223:
            self._consents = self.is_at(path)
            self._on_rtcp(data)
        else:
            self._mux.statistics.media_dropped += 1

    def path_lost(self, path: Path) -> None:
        """A TCP connection was hung up. A viewer that is still there opens another one soon."""
        self.addresses.pop(path.address, None)
        self._mux.disown(path.address)
        if path.is_same(self.path):
            self.path = None
            self._delegate()
            self.deadline = min(self.deadline, _now() + _TCP_GRACE)

    def expire(self, now: float) -> None:
        """The deadline has passed, as far as one knows who sees only some of the checks."""
        self._recall()
        if now > self.deadline:
            self.close("timeout" if self.state == "connected" else "failed")

    def _may_speak(self) -> bool:
        """Whether another DTLS datagram is taken: whoever can forge the viewer's address could keep us busy."""
        now = _now()
        if now >= self._records_until:
            self._records, self._records_until = 0, now + 1.0
        self._records += 1
        return self._records <= self._mux.settings.dtls_rate

    def _connected(self, keys: SrtpKeys) -> None:
        self.state = "connected"
        self._mux.connecting -= 1
        self.alive()
        self._on_connected(keys)

    def _send(self, data: bytes) -> bool:
        return self.path is not None and self.path.send(data)

    def _delegate(self) -> None:
        """Let the receiver answer the checks that change nothing. To be called when it changes which these are."""
        if self.state != "connected":
            return
        self._recall()
        checks, path = None, self.path
        if len(self._passwords) == 1 and path is not None and not path.is_tcp:
            [(ufrag, password)] = self._passwords.items()
            checks = PlainChecks(ufrag, password, path, self._nomination)
        self._mux.receiver.answer(self, checks)

    def _recall(self) -> None:
        """Take in what the receiver has answered."""
        checked_at = self._mux.receiver.take_checked_at(self)
        self.deadline = max(self.deadline, checked_at + self._mux.settings.consent_timeout)

    def _learn(self, address: Address) -> None:
        if len(self.addresses) >= self._mux.settings.addresses_per_peer:
            oldest = next(one for one in self.addresses if self.path is None or one != self.path.address)
            del self.addresses[oldest]
            self._mux.disown(oldest)
        self._mux.own(address, self)
        self.addresses[address] = None

    def _forget_ufrag(self, ufrag: bytes) -> None:
        del self._passwords[ufrag]
        del self._mux.by_ufrag[ufrag]


def _nothing() -> None: ...


def _ignored(path: Path) -> None: ...


def _now() -> float:
    return asyncio.get_running_loop().time()
