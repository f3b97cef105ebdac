"""What WIRE_FORMAT 2 asks of TLS, put into aioquic.

aioquic speaks TLS 1.3 itself, in Python. It knows no X25519MLKEM768, so the key exchange here is another one
that knows both groups; it never looks at a certificate the way axon does, so pinning is here; and it has no
exporter, so that is here too. Importing this changes aioquic for the whole process.
"""

import ssl
from dataclasses import dataclass, field
from typing import Callable
from unittest import mock

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from identity import Identity, agent_id

X25519 = 0x001D
X25519MLKEM768 = 0x11EC
# Bytes of an encapsulation key and of a ciphertext of ML-KEM-768.
ENCAPSULATION_KEY = 1184
CIPHERTEXT = 1088


class Public:
    """A key share of either group: one that came, or one that is to leave."""

    def __init__(self, group: int, share: bytes = b"", private: "Private | None" = None) -> None:
        self.group, self.share, self.private = group, share, private

    @classmethod
    def from_public_bytes(cls, share: bytes) -> "Public":
        return cls(X25519, share)


class Private:
    """The private halves for both groups. One X25519 key serves both, as the hybrid's draft allows."""

    def __init__(self) -> None:
        self.curve = x25519.X25519PrivateKey.generate()
        self.lattice = mlkem.MLKEM768PrivateKey.generate()
        self.ciphertext: bytes | None = None
        self.group: int | None = None

    @classmethod
    def generate(cls) -> "Private":
        return cls()

    def public_key(self) -> Public:
        return Public(X25519, private=self)

    def point(self) -> bytes:
        return self.curve.public_key().public_bytes_raw()

    def hybrid_share(self) -> bytes:
        """What the client sends: the encapsulation key, then the point."""
        return self.lattice.public_key().public_bytes_raw() + self.point()

    def exchange(self, peer: Public) -> bytes:
        self.group = peer.group
        if peer.group == X25519:
            return self.curve.exchange(x25519.X25519PublicKey.from_public_bytes(peer.share))
        lattice, point = peer.share[:-32], peer.share[-32:]
        if len(lattice) == CIPHERTEXT:
            secret = self.lattice.decapsulate(lattice)
        elif len(lattice) == ENCAPSULATION_KEY:
            key = mlkem.MLKEM768PublicKey.from_public_bytes(lattice)
            secret, self.ciphertext = key.encapsulate()
        else:
            raise ValueError("a hybrid share of another length")
        return secret + self.curve.exchange(x25519.X25519PublicKey.from_public_bytes(point))


class Curves:
    """Stands where aioquic looks for its module x25519."""

    X25519PublicKey = Public
    X25519PrivateKey = Private


def decode_public_key(share: tuple[int, bytes]) -> Public | None:
    group, data = share
    return Public(group, data) if group in (X25519, X25519MLKEM768) else None


def encode_public_key(public: Public) -> tuple[int, bytes]:
    private = public.private
    if private.ciphertext is not None:
        return (X25519MLKEM768, private.ciphertext + private.point())
    return (X25519, private.point())


tls.x25519 = Curves
tls.decode_public_key = decode_public_key
tls.encode_public_key = encode_public_key


@dataclass
class Axon:
    """What one end wants of its handshakes."""

    me: Identity
    # Says whether a key is pinned, by its agent id (WF-PIN-3).
    pinned: Callable[[str, bytes], bool]
    # The groups offered, or taken by an acceptor, best first (WF-TLS-2).
    groups: list[int] = field(default_factory=lambda: [X25519MLKEM768, X25519])


class Handshake(tls.Context):
    """A TLS session as axon has it."""

    axon: Axon
    peer_key: bytes | None = None
    exporter_secret: bytes | None = None
    server_name_seen: str | None = None

    def prepare(self, axon: Axon) -> None:
        self.axon = axon
        # WF-TLS-3, WF-TLS-4.
        self._request_client_certificate = True
        self._signature_algorithms = [tls.SignatureAlgorithm.ED25519]
        self._verify_mode = ssl.CERT_NONE
        self._supported_groups = [tls.Group.X25519] if self._is_client else axon.groups

    def key_group(self) -> int:
        """The group of the key exchange."""
        return self._x25519_private_key.group

    def _client_send_hello(self, buf) -> None:
        push = tls.push_client_hello

        def with_hybrid(buf, hello) -> None:
            private = self._x25519_private_key
            shares = {X25519: private.point(), X25519MLKEM768: private.hybrid_share()}
            hello.key_share = [(group, shares[group]) for group in self.axon.groups]
            hello.supported_groups = list(self.axon.groups)
            push(buf, hello)

        with mock.patch.object(tls, "push_client_hello", with_hybrid):
            super()._client_send_hello(buf)

    def _server_handle_hello(self, input_buf, initial_buf, handshake_buf) -> None:
        pull = tls.pull_client_hello

        def with_name(buf):
            hello = pull(buf)
            # WF-PIN-2.
            if hello.server_name != self.axon.me.id:
                raise tls.AlertHandshakeFailure("the server name is not this agent's id")
            # The best group for this end, whatever the order is in which the shares came.
            hello.key_share.sort(key=lambda share: -share[0])
            return hello

        with mock.patch.object(tls, "pull_client_hello", with_name):
            super()._server_handle_hello(input_buf, initial_buf, handshake_buf)

    def _set_peer_certificate(self, certificate) -> None:
        super()._set_peer_certificate(certificate)
        key = self._peer_certificate.public_key()
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise tls.AlertUnsupportedCertificate("the key is not of Ed25519")
        raw = key.public_bytes_raw()
        found = agent_id(raw)
        # WF-PIN-1, WF-PIN-3, WF-PIN-4.
        if self._is_client and found != self._server_name:
            raise tls.AlertBadCertificate("another agent answered")
        if not self.axon.pinned(found, raw):
            raise tls.AlertBadCertificate("not pinned")
        self.peer_key = raw

    def _server_handle_certificate(self, input_buf) -> None:
        super()._server_handle_certificate(input_buf)
        if self.peer_key is None:
            raise tls.AlertBadCertificate("no certificate")

    def _setup_traffic_protection(self, direction, epoch, label) -> None:
        # At this moment the transcript ends with the server's Finished, as RFC 8446, 7.1, wants it.
        if label == b"s ap traffic":
            self.exporter_secret = self.key_schedule.derive_secret(b"exp master")
        super()._setup_traffic_protection(direction, epoch, label)

    def export(self, label: bytes, length: int) -> bytes:
        """RFC 8446, 7.5, without a context (WF-STRANGER-6)."""
        algorithm = self.key_schedule.algorithm

        def empty() -> bytes:
            return hashes.Hash(algorithm).finalize()

        size = algorithm.digest_size
        secret = tls.hkdf_expand_label(algorithm, self.exporter_secret, label, empty(), size)
        return tls.hkdf_expand_label(algorithm, secret, b"exporter", empty(), length)


@dataclass
class Configuration(QuicConfiguration):
    """A configuration that says whose handshakes these are."""

    axon: Axon | None = None


class Connection(QuicConnection):
    """A QUIC connection with such a handshake."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        # WF-STR-5.
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = 256

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.__class__ = Handshake
        self.tls.prepare(self._configuration.axon)


def configuration(axon: Axon, server_name: str | None) -> Configuration:
    """For a dialler with a server name, for an acceptor without."""
    made = Configuration(is_client=server_name is not None, alpn_protocols=["axon/1"])
    made.axon = axon
    made.server_name = server_name
    made.certificate = axon.me.certificate
    made.private_key = axon.me.private
    made.supported_versions = made.supported_versions[:1]
    made.idle_timeout = 60.0
    return made
