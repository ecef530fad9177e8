"""A contract test for each private name of aiortc that workers/transport/aiortc_compat.py rests on.

When one fails after an upgrade, that module has to follow aiortc; the names of the tests say where.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path

from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import SRTP_PROFILES, X509_DIGEST_ALGORITHMS
from OpenSSL import SSL

from workers.transport import aiortc_compat
from workers.transport.aiortc_compat import FINGERPRINT_ALGORITHMS, PROFILES, Certificate, profile_named


def test_the_method_that_is_called_exists() -> None:
    assert list(inspect.signature(RTCCertificate._create_ssl_context).parameters) == ["self", "srtp_profiles"]


def test_a_context_demands_the_viewers_certificate() -> None:
    """Without it there would be no fingerprint to compare."""
    context = Certificate.generateCertificate().context
    assert context.get_verify_mode() == SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


def test_one_context_serves_all_and_keeps_no_sessions() -> None:
    certificate = Certificate.generateCertificate()
    assert certificate.context is certificate.context
    assert certificate.context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


def test_the_profiles_are_aiortcs_with_the_cheapest_first() -> None:
    assert sorted(one.openssl_profile for one in PROFILES) == sorted(one.openssl_profile for one in SRTP_PROFILES)
    assert PROFILES[0].openssl_profile == b"SRTP_AEAD_AES_128_GCM"
    assert profile_named(b"SRTP_AEAD_AES_128_GCM") is PROFILES[0]
    assert profile_named(b"") is None


def test_a_profile_takes_key_and_salt_as_rfc_5764_orders_them() -> None:
    profile = PROFILES[0]
    material = bytes(range(2 * (profile.key_length + profile.salt_length)))
    assert profile.get_key_and_salt(material, 0) == material[0:16] + material[32:44]
    assert profile.get_key_and_salt(material, 1) == material[16:32] + material[44:56]


def test_fingerprints_are_taken_by_algorithms_that_hashlib_knows_without_their_hyphen() -> None:
    certificate = RTCCertificate.generateCertificate()
    assert frozenset({"sha-256", "sha-384", "sha-512"}) == FINGERPRINT_ALGORITHMS == X509_DIGEST_ALGORITHMS.keys()
    assert {name.replace("-", "") for name in FINGERPRINT_ALGORITHMS} <= hashlib.algorithms_guaranteed
    assert Certificate(certificate._key, certificate._cert).fingerprint == certificate.getFingerprints()[0].value


def test_private_names_are_touched_in_one_module_only() -> None:
    """Names with an underscore on aiortc's or aioice's objects, anywhere in the project's packages."""
    root = Path(aiortc_compat.__file__).parents[2]
    private = {"_rx_srtp", "_tx_srtp", "_set_role", "_rtp_router", "_create_ssl_context", "_setup_srtp",
               "_srtp_profiles", "_set_state", "_recv_next", "_write_ssl", "_cert"}  # fmt: skip
    found = {
        path.name
        for package in ("broadcaster", "workers", "gateway")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in private
    }
    assert found == {"aiortc_compat.py"}
