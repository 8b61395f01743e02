"""The base image where none can be pulled: Debian's own Python in a minimal Debian, made on this machine.

It stands in for ``python:3.12-slim`` as BASE_IMAGE; the Dockerfile and the compose file are the ones that users have.
"""

import hashlib
import os
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

TAG = "replicad-test-base:bookworm"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian keeps the certificates, and where this machine's go in the image."""
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def base_image():
    """Return the image to build upon: what BASE_IMAGE names, or our own, made now if it is not there yet."""
    named = os.environ.get("BASE_IMAGE")
    if named:
        return named
    bundle = certificates()
    digest = hashlib.sha256(bundle).hexdigest() if bundle else "none"
    if existing_label() != digest:
        make(bundle, digest)
    return TAG


def existing_label():
    """Return which certificates the image has that is there, "" if there is none."""
    command = ["docker", "image", "inspect", "--format", '{{index .Config.Labels "replicad.certificates"}}', TAG]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def certificates():
    """Return the certificates that this machine trusts; a network that inspects traffic has added its own."""
    path = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path and Path(path).is_file() else b""


def make(bundle, digest):
    """Bootstrap a Debian into a directory and import it; takes a minute or two, once."""
    debootstrap = shutil.which("debootstrap", path=SEARCH)
    if not debootstrap or os.geteuid() != 0:
        pytest.fail(
            "the container tests make their own base image, for which they need root and debootstrap (apt install "
            "debootstrap); or set BASE_IMAGE=python:3.12-slim where that can be pulled"
        )
    root = Path(tempfile.mkdtemp(prefix="replicad-base-"))
    try:
        mirror = debian_mirror()
        command = [
            debootstrap,
            "--variant=minbase",
            f"--include={PACKAGES}",
            SUITE,
            root,
            *([mirror] if mirror else []),
        ]
        made = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": SEARCH},
            check=False,
        )
        assert made.returncode == 0, f"debootstrap failed:\n{made.stdout[-4000:]}"
        if bundle:
            (root / BUNDLE.lstrip("/")).write_bytes(bundle)
        import_tree(root, digest)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def import_tree(root, digest):
    """Make the directory an image; device files and downloaded packages stay out."""
    left_out = ["./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*"]
    changes = [
        f"ENV PIP_CERT={BUNDLE} SSL_CERT_FILE={BUNDLE}",
        f"LABEL replicad.certificates={digest}",
        'CMD ["python3"]',
    ]
    tar = subprocess.Popen(
        ["tar", "-C", root, *(f"--exclude={path}" for path in left_out), "-c", "."], stdout=subprocess.PIPE
    )
    imported = subprocess.run(
        ["docker", "import", *(f"--change={change}" for change in changes), "-", TAG],
        stdin=tar.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    tar.stdout.close()
    assert tar.wait() == 0
    assert imported.returncode == 0, imported.stdout


def debian_mirror():
    """Return the mirror from which this machine gets the suite, "" (debootstrap knows one) if it gets it from none."""
    apt = shutil.which("apt-get")
    if not apt:
        return ""
    command = [
        apt,
        "indextargets",
        "--format",
        "$(CODENAME) $(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    for line in lines:
        *names, component, uri = line.split()
        if SUITE in names and component == "main" and uri.startswith(("http://", "https://", "file:")):
            return uri
    return ""
