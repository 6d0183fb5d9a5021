"""Throwaway authorities and certificates, made by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_authority(folder: Path) -> None:
    """Make ``ca.pem`` with its key. Skips the test where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # without it Python 3.13 trusts no authority
    files = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA")
    _openssl(folder, "req", "-x509", *_NEW_KEY, "-days", "2", *usage, *files)


def sign(folder: Path, name: str, alternative: str) -> None:
    """Make ``NAME.pem``, a certificate with its key after it, and ``NAME.key``.

    Args:
        alternative: the name that the certificate carries, such as ``DNS:images.test`` or ``IP:127.0.0.1``.
    """
    _openssl(folder, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}.test")
    keys = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid"
    (folder / "names").write_text(f"subjectAltName={alternative}\n{keys}")
    _openssl(
        folder,
        *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "names", "-out", f"{name}.crt"),
    )
    (folder / f"{name}.pem").write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())


def tls_of_images_test(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server that is images.test, and of a client that trusts its authority."""
    return tls_of(folder, "DNS:images.test")


def tls_of(folder: Path, alternative: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server whose certificate carries a name, and of a client that trusts its authority."""
    make_authority(folder)
    sign(folder, "server", alternative)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cafile=str(folder / "ca.pem"))


def make_signer(folder: Path) -> tuple[bytes, bytes]:
    """Return the chain and the key of a signer as C2PA wants them (specification 2.2, 14.5)."""
    make_authority(folder)
    _openssl(folder, "req", *_NEW_KEY, "-keyout", "signer.key", "-out", "signer.csr", "-subj", "/O=Test/CN=Signer")
    (folder / "signer.ext").write_text(
        "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=emailProtection\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    _openssl(
        folder,
        *("x509", "-req", "-in", "signer.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "signer.ext", "-out", "signer.pem"),
    )
    chain = (folder / "signer.pem").read_bytes() + (folder / "ca.pem").read_bytes()
    return chain, (folder / "signer.key").read_bytes()


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
