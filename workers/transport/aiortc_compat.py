"""The one module that touches private names of aiortc; tests/test_aiortc_compat.py has a contract test per name.

A worker takes from aiortc what two ends of a connection have to agree on: the certificate, the TLS context with its
ciphers and its demand for the peer's certificate, the SRTP profiles, and the algorithms of fingerprints.
"""

from __future__ import annotations

from aiortc.rtcdtlstransport import SRTP_PROFILES, X509_DIGEST_ALGORITHMS, RTCCertificate, SRTPProtectionProfile
from OpenSSL import SSL

FINGERPRINT_ALGORITHMS = frozenset(X509_DIGEST_ALGORITHMS)

# The cheapest first: the server's order decides when a viewer offers several.
PROFILES = sorted(SRTP_PROFILES, key=lambda profile: (b"GCM" not in profile.openssl_profile, profile.key_length))


class Certificate(RTCCertificate):
    """A worker's certificate, with one TLS context for all its handshakes."""

    _context: SSL.Context | None = None

    @property
    def fingerprint(self) -> str:
        """sha-256, "AB:CD:…"."""
        return next(one.value for one in self.getFingerprints() if one.algorithm == "sha-256")

    @property
    def context(self) -> SSL.Context:
        """Made once, with all profiles."""
        if self._context is None:
            self._context = self._create_ssl_context(PROFILES)
            # A shared context would remember every viewer's TLS session, and no viewer ever resumes one.
            self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        return self._context


def profile_named(name: bytes) -> SRTPProtectionProfile | None:
    """The SRTP profile of this name of OpenSSL's; None when nothing was agreed on."""
    return next((profile for profile in PROFILES if profile.openssl_profile == name), None)
