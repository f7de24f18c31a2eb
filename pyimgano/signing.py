"""Signs a bundle folder and checks a signature, offline, with a key of your own.

The format is OpenSSF model signing: one file beside the bundle that names the sha256
of every file in it, signed by an elliptic-curve key. Nothing is sent anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import parse_json
from pyimgano_runtime.atomic import refuse_existing_file, write_bytes
from pyimgano_runtime.errors import BundleError, ConfigError

SUFFIX: Final = ".sig"
MAX_SIGNATURE_BYTES: Final = 16 * 1024 * 1024
_NEEDS: Final = (
    "signatures need model-signing: pip install model-signing pyopenssl "
    '(the extra "sign")'
)
_CURVES: Final = "an elliptic-curve key in PEM form (P-256, P-384 or P-521)"
# What the library and the packages below it raise on keys and files they cannot use.
_UNUSABLE: Final = (ValueError, TypeError, LookupError, AttributeError)


def default_signature(root: Path) -> Path:
    """Give where a bundle's signature lies: beside the folder."""
    root = root.resolve() if root.name in ("", "..") else root
    return root.with_name(root.name + SUFFIX)


def sign_folder(root: Path, key: Path, output: Path, *, force: bool) -> None:
    """Sign every file of a folder and write the signature, complete or absent.

    Args:
        root: holds no file but those that are meant; the caller has checked it.
        key: private key, not encrypted.

    Raises:
        ConfigError: model-signing is not installed, the key cannot be used, or the
            output exists or lies in the folder.
    """
    refuse_existing_file(output, force=force, is_ours=_is_signature)
    if output.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"{output}: lies in the bundle, which it would change; name a file beside "
            f"it, such as {default_signature(root)}"
        )
    try:
        from model_signing import signing
    except ImportError as cause:
        raise ConfigError(_NEEDS) from cause
    config = signing.Config()
    try:
        config.use_elliptic_key_signer(private_key=key)
    except OSError as cause:
        raise _unreadable(key, "private key", cause) from cause
    except _UNUSABLE as cause:
        raise ConfigError(
            f"{key}: is no private key to sign with ({_first_line(cause)}); expected "
            f"{_CURVES}, not encrypted"
        ) from cause
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "signature")
        config.sign(root, made)
        write_bytes(output, made.read_bytes())


def check_signature(
    root: Path, read: Mapping[str, str], signature: Path, public_key: Path
) -> str:
    """Give one sentence about a signature that is good.

    The library reads the folder once more, and somebody may have exchanged it since
    the caller did: the bytes that the caller judged must be those that were signed.

    Args:
        read: sha256 of every file as the caller read or lists it, infer_config.json
            among them; exactly these must be signed.

    Raises:
        BundleError: the folder is not what was signed, or not by this key; one
            sentence says which.
        ConfigError: model-signing is not installed, or the public key cannot be used.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from model_signing import verifying
    except ImportError as cause:
        raise ConfigError(_NEEDS) from cause
    data, document = _read_signature(signature)
    config = verifying.Config()
    try:
        config.use_elliptic_key_verifier(public_key=public_key)
    except OSError as cause:
        raise _unreadable(public_key, "public key", cause) from cause
    except _UNUSABLE as cause:
        raise ConfigError(
            f"{public_key}: is no public key to verify with ({_first_line(cause)}); "
            f"expected {_CURVES}"
        ) from cause
    try:
        with tempfile.TemporaryDirectory() as folder:
            same = Path(folder, "signature")  # as it was read, whatever lies there now
            same.write_bytes(data)
            with redirect_stdout(sys.stderr):  # it warns of old files by print
                config.verify(root, same)
    except InvalidSignature as cause:
        raise _other_key(signature, public_key) from cause
    except ValueError as cause:
        text = _first_line(cause)
        if text.startswith("Key mismatch"):
            raise _other_key(signature, public_key) from cause
        # "Cannot use": a link or a device lies in the folder.
        if not text.startswith(("Signature mismatch", "Cannot use")):
            raise _broken(signature, cause) from cause
        raise BundleError(
            f"{signature}: the bundle is not what was signed "
            f"({_differences(root, document)}); copy the bundle and its signature again"
        ) from cause
    except (TypeError, LookupError, AttributeError) as cause:
        raise _broken(signature, cause) from cause
    problems = signed_otherwise(_signed_resources(document), read)
    if problems:
        raise BundleError(
            f"{signature}: {'; '.join(problems)}; copy the bundle and its signature "
            'again, or sign it again by "pyimgano bundle sign"'
        )
    return f"{signature}: every file is what the owner of {public_key} signed"


def signed_otherwise(
    resources: Sequence[Mapping[str, str]], read: Mapping[str, str]
) -> list[str]:
    """Say how the files that were signed differ from those that were read.

    Args:
        resources: name, algorithm and digest of each file, as a signature holds them.
        read: sha256 of each file.
    """
    names = {resource["name"] for resource in resources}
    known = [r for r in resources if r["name"] in read]
    foreign = [r for r in known if r["algorithm"] != "sha256"]
    changed = [r for r in known if r not in foreign and r["digest"] != read[r["name"]]]
    problems = []
    left_out = [path for path in read if path not in names]
    if left_out:
        problems.append(f"does not cover {_some(left_out)}")
    if changed:
        problems.append(
            f"signs other bytes of {_some([r['name'] for r in changed])} than were "
            "read here"
        )
    if foreign:
        problems.append(
            f"names {foreign[0]['name']} by {foreign[0]['algorithm']}, expected sha256"
        )
    more = sorted(names - set(read))
    if more:
        problems.append(f"signs {_some(more)}, which is not listed")
    return problems


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _read_signature(path: Path) -> tuple[bytes, Any]:
    """Give a signature file's bytes and what they say."""
    try:
        if path.stat().st_size > MAX_SIGNATURE_BYTES:
            raise BundleError(
                f"{path}: is larger than {MAX_SIGNATURE_BYTES} bytes, which no "
                "signature is; copy it again"
            )
        data = path.read_bytes()
    except OSError as cause:
        raise BundleError(
            f"{path}: the signature cannot be read ({cause.strerror}); copy it again"
        ) from cause
    try:
        return data, parse_json(data, str(path), error=BundleError)
    except BundleError as cause:
        raise _broken(path, cause) from cause


def _signed_resources(document: Any) -> list[dict[str, str]]:
    """Give what a signature names; its form was proven by the library."""
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    resources: list[dict[str, str]] = payload.get("predicate", {}).get("resources", [])
    return resources


def _differences(root: Path, document: Any) -> str:
    """Name the files that are not as they were signed."""
    signed = {r["name"]: r for r in _signed_resources(document)}
    found = {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    changed = [
        name
        for name, resource in signed.items()
        if name in found and not _has_sha256(found[name], resource)
    ]
    kinds = {
        "changed": changed,
        "missing": sorted(set(signed) - set(found)),
        "added": sorted(set(found) - set(signed)),
    }
    return "; ".join(
        f"{kind}: {_some(names)}" for kind, names in kinds.items() if names
    )


def _has_sha256(path: Path, resource: dict[str, str]) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if resource["algorithm"] != "sha256":
        return True  # cannot be told here
    return hashlib.sha256(path.read_bytes()).hexdigest() == resource["digest"]


def _other_key(signature: Path, public_key: Path) -> BundleError:
    return BundleError(
        f"{signature}: was not made by the owner of {public_key}, or was changed; ask "
        "the sender for the signature and the public key"
    )


def _broken(signature: Path, cause: Exception) -> BundleError:
    text = _first_line(cause).removeprefix(f"{signature}: ")
    return BundleError(
        f"{signature}: is no signature file of a bundle ({text}); copy it again"
    )


def _unreadable(path: Path, what: str, cause: OSError) -> ConfigError:
    return ConfigError(f"{path}: the {what} cannot be read ({cause.strerror})")


def _first_line(cause: Exception) -> str:
    lines = str(cause).splitlines()
    return lines[0].strip() if lines else type(cause).__name__


def _is_signature(head: bytes) -> bool:
    return head.lstrip().startswith(b"{") and b"sigstore.bundle" in head
