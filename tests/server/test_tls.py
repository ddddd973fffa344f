"""HTTPS with a certificate of one's own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.server.conftest import MakeServer
from tests.server.scripted_engine import ScriptedEngine, delta
from wheelpit.request import RequestOutput
from wheelpit.server.listen import Listen


async def says_nothing() -> AsyncGenerator[RequestOutput, None]:
    yield delta("", finish_reason="stop")


def test_https_with_a_key_and_a_certificate(
    make_server: MakeServer, model_folder: Path, tmp_path: Path
) -> None:
    key, certificate = make_certificate(tmp_path)
    listen = Listen(host="127.0.0.1", port=0, ssl_keyfile=str(key), ssl_certfile=str(certificate))
    running = make_server(engine=ScriptedEngine(model_folder, says_nothing), listen=listen)
    assert running.url.startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=running.url, verify=trusted) as client:
        assert client.get("/health").status_code == 200


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A private key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = folder / "key.pem", folder / "cert.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file
