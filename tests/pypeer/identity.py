"""Keys, agent ids, certificates, links and proofs, as WIRE_FORMAT 1 and 2 and kinds/pairing say."""

import datetime
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID


def agent_id(key: bytes) -> str:
    """WF-ID-1."""
    return "ed25519." + hashlib.sha256(key).digest()[:16].hex()


class Identity:
    """A key pair, and a certificate made anew for this run (WF-TLS-3)."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = self.private.public_key().public_bytes_raw()
        self.id = agent_id(self.key)
        self.certificate = self.certify("means nothing", 1, self.private)

    def certify(self, called: str, days: int, signer: Ed25519PrivateKey) -> x509.Certificate:
        """A certificate of this key, with this name, for so many days from now, signed by that key."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)] if called else [])
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=days))
            .sign(signer, None)
        )


def unbase64(text: str) -> bytes:
    """URL-safe base64 without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def base64(data: bytes) -> str:
    """The same, the other way."""
    return urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Link:
    """A link as kinds/pairing reads it."""

    key: bytes
    addrs: list[tuple[str, int]]
    secret: bytes | None

    @classmethod
    def read(cls, text: str) -> "Link":
        rest = text.strip().removeprefix("axon://")
        key, _, rest = rest.partition("@")
        first, _, query = rest.partition("?")
        addrs, secret = [first.rstrip("/")], None
        for pair in query.split("&") if query else []:
            name, _, value = pair.partition("=")
            if name == "k":
                secret = unbase64(value)
            elif name == "a":
                addrs.append(value)
        places = []
        for addr in addrs[:8]:
            host, _, port = addr.rpartition(":")
            places.append((host.strip("[]"), int(port)))
        return cls(unbase64(key), places, secret)


def proof(secret: bytes, knocker: bytes, receiver: bytes, binding: bytes) -> tuple[str, str]:
    """The `invite` and the `proof` of a knock."""
    invite = hashlib.sha256(b"axon/1 invite id" + secret).digest()[:8]
    key = hashlib.sha256(b"axon/1 invite key" + secret).digest()
    made = hmac.new(key, b"axon/1 knock" + knocker + receiver + binding, hashlib.sha256)
    return invite.hex(), made.hexdigest()
