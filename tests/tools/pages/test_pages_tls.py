"""Pages behind TLS: the certificate is held against the name in the address, though an IP address is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keyeloop.runtime.errors import ToolError
from keyeloop.tools.pages import fetching
from keyeloop.tools.pages.address import IP
from keyeloop.tools.pages.fetching import Fetcher

NAMED: list[str | None] = []


class Loopback:
    """Every name is this machine."""

    async def resolve(self, host: str, port: int) -> Sequence[IP]:
        return [ipaddress.ip_address("127.0.0.1")]


def certify(folder: Path, host: str) -> tuple[Path, Path]:
    """A self-signed certificate of ``host``, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return certificate, private


@pytest.fixture
async def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server whose certificate, which is believed here, is of ``wiki.lan``."""
    certificate, private = certify(tmp_path, "wiki.lan")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, private)
    served.sni_callback = lambda _socket, name, _context: NAMED.append(name)
    monkeypatch.setattr(fetching, "trust", lambda: ssl.create_default_context(cafile=str(certificate)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_the_name_in_the_address_is_the_one_that_is_checked(port: int) -> None:
    NAMED.clear()
    fetcher = Fetcher(["wiki.lan", "other.lan"], resolver=Loopback())
    assert (await fetcher.fetch(f"https://wiki.lan:{port}/")).body == b"secret"
    assert NAMED == ["wiki.lan"]
    with pytest.raises(ToolError, match=r"https://other\.lan.* could not be fetched: .*[Cc]ertificate"):
        await fetcher.fetch(f"https://other.lan:{port}/")
