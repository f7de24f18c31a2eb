"""`pyimgano bundle sign` and `verify --signature`: origin, offline, by your own key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bundle_copies import copy_of, edit_json, set_threshold
from conftest import CommandResult, Exported
from pyimgano.signing import check_signature, signed_otherwise
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import BundleError

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]


@pytest.fixture
def bundle(exported: Export, tmp_path: Path) -> Path:
    """Give a copy of a bundle that a test may spoil."""
    return copy_of(exported("pixel_stats").bundle, tmp_path / "Größe 7")


def write_key(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> Path:
    """The private key's file, after it was made; the public one ends in .pub."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(private_pem(key))
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return pem


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path, "key")


@pytest.fixture
def signature(bundle: Path, key: Path, run_cli: Run) -> Path:
    """Give the signature of the bundle."""
    done = run_cli("bundle", "sign", bundle, "--key", key)
    assert done.code == 0, done.stderr
    return bundle.with_name("Größe 7.sig")


@pytest.fixture
def verify(run_cli: Run, bundle: Path, key: Path, signature: Path) -> Run:
    """Give a function that verifies the bundle, its signature and its key."""

    def run(*, file: Path = signature, public: Path | None = None) -> CommandResult:
        public = public or key.with_suffix(".pub")
        return run_cli(
            *("bundle", "verify", bundle, "--signature", file, "--public-key", public)
        )

    return run


def signature_finding(done: CommandResult) -> str:
    """The one line about the signature."""
    (line,) = [s for s in done.stdout.splitlines() if s.split()[1:2] == ["signature"]]
    return line


# --- good signatures ----------------------------------------------------------------


def test_a_bundle_that_was_signed_is_verified(bundle: Path, verify: Run) -> None:
    done = verify()
    assert done.code == 0, done.stdout
    assert signature_finding(done).startswith("ok ")
    assert "every file is what the owner of" in done.stdout


def test_signing_prints_the_file_and_the_identity(
    bundle: Path, key: Path, run_cli: Run
) -> None:
    done = run_cli("bundle", "sign", bundle, "--key", key)
    assert f"signature: {bundle}.sig\n" in done.stdout
    assert open_bundle(bundle).sha256 in done.stdout


def test_signing_puts_nothing_into_the_bundle(bundle: Path, signature: Path) -> None:
    assert open_bundle(bundle).unlisted_files() == []
    assert sorted(p.name for p in bundle.parent.iterdir()) == [
        *("Größe 7", "Größe 7.sig", "key.pem", "key.pub"),
    ]


def test_the_bundle_may_be_renamed(bundle: Path, verify: Run, run_cli: Run) -> None:
    moved = bundle.with_name("another name")
    bundle.rename(moved)
    done = run_cli(
        *("bundle", "verify", moved, "--signature", f"{bundle}.sig"),
        *("--public-key", bundle.with_name("key.pub")),
    )
    assert done.code == 0


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_the_other_curves_sign_too(
    curve: ec.EllipticCurve, bundle: Path, run_cli: Run
) -> None:
    key = write_key(bundle.parent, "other", curve)
    assert run_cli("bundle", "sign", bundle, "--key", key).code == 0
    done = run_cli(
        *("bundle", "verify", bundle, "--signature", f"{bundle}.sig"),
        *("--public-key", key.with_suffix(".pub")),
    )
    assert done.code == 0


def test_signing_and_verifying_open_no_socket(bundle: Path, key: Path) -> None:
    script = f"""
import socket, sys
def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")
class Refused(socket.socket):
    __init__ = refuse
socket.socket = Refused
socket.create_connection = socket.getaddrinfo = refuse
from pyimgano.cli import main
made = main(["bundle", "sign", {str(bundle)!r}, "--key", {str(key)!r}])
good = main(["bundle", "verify", {str(bundle)!r}, "--signature",
    {f"{bundle}.sig"!r}, "--public-key", {str(key.with_suffix(".pub"))!r}])
print("codes", made, good)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=120,
    )
    assert done.stdout.endswith("codes 0 0\n")
    assert done.stderr == ""


def test_the_tool_of_model_signing_verifies_it_as_well(
    bundle: Path, key: Path, signature: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "model_signing", "verify", "key", str(bundle)),
            *("--signature", str(signature)),
            *("--public_key", str(key.with_suffix(".pub"))),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


# --- what is not signed -------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["changed", "missing", "unlisted"])
def test_a_bundle_that_fails_verify_is_not_signed(
    spoil: str, bundle: Path, key: Path, run_cli: Run
) -> None:
    if spoil == "unlisted":
        (bundle / ".gitignore").write_text("x")
    elif spoil == "changed":
        (bundle / "MODEL_CARD.md").write_text("x")
    else:
        (bundle / "MODEL_CARD.md").unlink()
    done = run_cli("bundle", "sign", bundle, "--key", key)
    assert done.code == 2
    assert "is not in the list" in done.stderr or "MODEL_CARD.md" in done.stderr
    assert not Path(f"{bundle}.sig").exists()


def test_an_existing_signature_is_not_replaced(
    bundle: Path, key: Path, signature: Path, run_cli: Run
) -> None:
    before = signature.read_bytes()
    done = run_cli("bundle", "sign", bundle, "--key", key)
    assert done.code == 2
    assert "already exists and nothing is overwritten" in done.stderr
    assert signature.read_bytes() == before
    assert run_cli("bundle", "sign", bundle, "--key", key, "--force").code == 0
    assert signature.read_bytes() != before


def test_force_replaces_signatures_only(bundle: Path, key: Path, run_cli: Run) -> None:
    done = run_cli("bundle", "sign", bundle, "--key", key, "--force", "--output", key)
    assert done.code == 2
    assert "is a file of another kind, which is never replaced" in done.stderr


def test_a_signature_inside_of_the_bundle_is_refused(
    bundle: Path, key: Path, run_cli: Run
) -> None:
    output = bundle / "b.sig"
    done = run_cli("bundle", "sign", bundle, "--key", key, "--output", output)
    assert done.code == 2
    assert "lies in the bundle, which it would change" in done.stderr
    assert not output.exists()


def keys_of_no_use(folder: Path) -> dict[str, Path]:
    """Files that are no private key to sign with."""
    contents = {
        "empty": b"",
        "words": b"not a key",
        "public": write_key(folder, "pair").with_suffix(".pub").read_bytes(),
        "ed25519": private_pem(ed25519.Ed25519PrivateKey.generate()),
        "encrypted": private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"),
        "curve": private_pem(ec.generate_private_key(ec.SECP256K1())),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize(
    "kind", ["empty", "words", "public", "ed25519", "encrypted", "curve"]
)
def test_a_key_of_no_use_is_refused(kind: str, bundle: Path, run_cli: Run) -> None:
    key = keys_of_no_use(bundle.parent)[kind]
    done = run_cli("bundle", "sign", bundle, "--key", key)
    assert done.code == 2
    assert "expected an elliptic-curve key in PEM form" in done.stderr
    assert not Path(f"{bundle}.sig").exists()


def test_a_key_that_is_gone_is_refused(bundle: Path, run_cli: Run) -> None:
    done = run_cli("bundle", "sign", bundle, "--key", bundle.with_name("gone.pem"))
    assert done.code == 2
    assert "gone.pem: the private key cannot be read" in done.stderr


def test_without_model_signing_the_package_is_named(
    bundle: Path, key: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model_signing", "cryptography.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run_cli("bundle", "sign", bundle, "--key", key)
    assert done.code == 2
    assert "pip install model-signing pyopenssl" in done.stderr
    done = run_cli(
        *("bundle", "verify", bundle, "--signature", key, "--public-key", key)
    )
    assert done.code == 2
    assert "pip install model-signing pyopenssl" in done.stderr


# --- bad signatures: one sentence, exit 2 -------------------------------------------


def test_a_changed_document_is_not_what_was_signed(bundle: Path, verify: Run) -> None:
    set_threshold(bundle, 1e6)
    done = verify()
    assert done.code == 2
    assert "not what was signed (changed: infer_config.json)" in signature_finding(done)


def test_an_added_file_is_not_what_was_signed(bundle: Path, verify: Run) -> None:
    (bundle / "more.txt").write_text("x")
    done = verify()
    assert done.code == 2
    assert "not what was signed (added: more.txt)" in signature_finding(done)


def test_a_missing_file_is_not_what_was_signed(bundle: Path, verify: Run) -> None:
    (bundle / "golden" / "001.png").unlink()
    done = verify()
    assert done.code == 2
    assert "not what was signed (missing: golden/001.png)" in signature_finding(done)


def test_another_key_is_refused(bundle: Path, verify: Run) -> None:
    other = write_key(bundle.parent, "other").with_suffix(".pub")
    done = verify(public=other)
    assert done.code == 2
    assert f"was not made by the owner of {other}" in signature_finding(done)


def test_a_signature_of_another_bundle_is_refused(
    bundle: Path, key: Path, verify: Run, run_cli: Run
) -> None:
    other = copy_of(bundle, bundle.with_name("other"))
    set_threshold(other, 1e6)
    assert run_cli("bundle", "sign", other, "--key", key).code == 0
    done = verify(file=other.with_name("other.sig"))
    assert done.code == 2
    assert "changed: infer_config.json" in signature_finding(done)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xfe", b"{}", b"[]", b'"x"', b"null", b'{"a": 1, "a": 2}',
        b'{"verificationMaterial": 3}', b'{"verificationMaterial": {}}', b"[" * 1000,
    ],
)  # fmt: skip
def test_a_broken_signature_file_is_refused(
    data: bytes, signature: Path, verify: Run
) -> None:
    signature.write_bytes(data)
    done = verify()
    assert done.code == 2
    assert "is no signature file of a bundle" in signature_finding(done)


def cut(document: dict[str, Any]) -> None:
    document["dsseEnvelope"]["signatures"].clear()


def forge(document: dict[str, Any]) -> None:
    document["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"


def strip_hint(document: dict[str, Any]) -> None:
    forge(document)
    del document["verificationMaterial"]["publicKey"]["hint"]


def exchange(document: dict[str, Any]) -> None:
    document["dsseEnvelope"]["payload"] = "e30="


@pytest.mark.parametrize("change", [cut, forge, strip_hint, exchange])
def test_a_changed_signature_file_is_refused(
    change: Callable[[dict[str, Any]], None], signature: Path, verify: Run
) -> None:
    edit_json(signature, change)
    done = verify()
    assert done.code == 2
    assert signature_finding(done).startswith("FAILED")


def test_a_signature_that_leaves_the_document_out_is_refused(
    bundle: Path, key: Path, signature: Path, verify: Run
) -> None:
    from model_signing import hashing, signing

    config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(
        hashing.Config().set_ignored_paths(paths=["infer_config.json"])
    )
    config.sign(bundle, signature)
    done = verify()
    assert done.code == 2
    assert "does not cover infer_config.json" in signature_finding(done)


def test_a_folder_that_was_exchanged_after_it_was_read_is_refused(
    bundle: Path, key: Path, run_cli: Run
) -> None:
    opened = open_bundle(bundle)
    read = {entry.path: entry.sha256 for entry in opened.config.files}
    read["infer_config.json"] = opened.sha256
    set_threshold(bundle, 1e6)  # between the reading and the check
    assert run_cli("bundle", "sign", bundle, "--key", key).code == 0
    with pytest.raises(BundleError, match=r"other bytes of infer_config\.json than"):
        check_signature(
            bundle, read, bundle.with_name("Größe 7.sig"), key.with_suffix(".pub")
        )


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        ([("a", "sha256", "11"), ("b", "sha256", "22")], []),
        ([("a", "sha256", "11")], ["does not cover b"]),
        ([("a", "sha256", "33"), ("b", "sha256", "44")], ["signs other bytes of a, b"]),
        (
            [("a", "sha256", "11"), ("a", "sha256", "33"), ("b", "sha256", "22")],
            ["signs other bytes of a"],
        ),
        (
            [("a", "sha256", "11"), ("b", "sha256", "22"), ("c", "sha256", "55")],
            ["signs c, which is not listed"],
        ),
        (
            [("a", "blake2b", "11"), ("b", "sha256", "22")],
            ["names a by blake2b, expected sha256"],
        ),
        (
            [("a", "sha256", "11"), ("b:0:9", "sha256", "22")],
            ["does not cover b", "signs b:0:9, which is not listed"],
        ),
    ],
)
def test_what_is_signed_is_held_against_what_was_read(
    signed: list[tuple[str, str, str]], expected: list[str]
) -> None:
    resources = [
        {"name": name, "algorithm": algorithm, "digest": digest}
        for name, algorithm, digest in signed
    ]
    found = signed_otherwise(resources, {"a": "11", "b": "22"})
    assert len(found) == len(expected)
    assert all(f.startswith(e) for f, e in zip(found, expected, strict=True))


def test_a_model_whose_signature_is_bad_is_never_run(bundle: Path, verify: Run) -> None:
    done = verify(public=write_key(bundle.parent, "other").with_suffix(".pub"))
    assert done.code == 2
    assert " graph " not in done.stdout
    assert "were not run: the signature was refused" in done.stdout


def test_a_signature_that_is_gone_is_refused(bundle: Path, verify: Run) -> None:
    done = verify(file=bundle.with_name("gone.sig"))
    assert done.code == 2
    assert "gone.sig: the signature cannot be read" in signature_finding(done)


def test_a_public_key_of_no_use_is_refused(bundle: Path, verify: Run) -> None:
    words = bundle.with_name("words.pub")
    words.write_text("not a key")
    done = verify(public=words)
    assert done.code == 2
    assert "words.pub: is no public key to verify with" in done.stderr


@pytest.mark.parametrize("option", ["--signature", "--public-key"])
def test_signature_and_key_go_together(
    option: str, bundle: Path, key: Path, run_cli: Run
) -> None:
    done = run_cli("bundle", "verify", bundle, option, key)
    assert done.code == 2
    assert "--signature and --public-key go together" in done.stderr


def test_json_stays_json_where_the_library_warns(
    bundle: Path, signature: Path, key: Path, run_cli: Run
) -> None:
    def old_form(document: dict[str, Any]) -> None:
        del document["verificationMaterial"]["publicKey"]["hint"]

    edit_json(signature, old_form)
    done = run_cli(
        *("bundle", "verify", bundle, "--json", "--signature", signature),
        *("--public-key", key.with_suffix(".pub")),
    )
    assert json.loads(done.stdout)["ok"] is True
    assert "older verification material" in done.stderr.replace("\n", " ")
