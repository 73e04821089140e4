"""Key files: made for their owner alone, and refused if others could have read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from licet.domain.signed_note import private_key_text, verifier_key
from licet.steward.signing import (
    Ed25519Signer,
    KeyFileError,
    create_key_file,
    read_key_file,
    verify_ed25519,
)
from tests.fakes.audit_log import ORIGIN, SEED

# RFC 8032, section 7.1, test 2.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_KEY = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_the_vector_of_rfc_8032() -> None:
    signer = Ed25519Signer("n", RFC_SEED)
    assert signer.key.public_key.hex() == RFC_KEY
    assert signer.sign(b"\x72").hex() == RFC_SIGNATURE
    assert verify_ed25519(signer.key.public_key, b"\x72", bytes.fromhex(RFC_SIGNATURE))


def test_what_is_no_signature_or_key_is_not_verified_and_is_no_error() -> None:
    signer = Ed25519Signer("n", RFC_SEED)
    signature = signer.sign(b"text")
    assert not verify_ed25519(signer.key.public_key, b"texts", signature)
    assert not verify_ed25519(signer.key.public_key, b"text", signature[:-1])
    assert not verify_ed25519(signer.key.public_key, b"text", b"")
    assert not verify_ed25519(b"short", b"text", signature)
    assert not verify_ed25519(bytes(32), b"text", signature)


def test_a_new_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = create_key_file(path, ORIGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path).key == key
    assert verifier_key(key.text()) == key
    assert create_key_file(tmp_path / "other", ORIGIN) != key


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = create_key_file(path, ORIGIN)
    with pytest.raises(KeyFileError, match="File exists"):
        create_key_file(path, ORIGIN)
    assert read_key_file(path).key == key


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb"])
def test_a_key_has_a_name_that_notes_can_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="a key's name"):
        create_key_file(tmp_path / "key", name)
    assert not list(tmp_path.iterdir())


def test_the_mode_does_not_depend_on_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "key", ORIGIN)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o601, 0o620, 0o602, 0o644, 0o666, 0o440])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    create_key_file(path, ORIGIN)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"has mode {mode:04o}"):
        read_key_file(path)


def test_a_key_may_be_stricter_still_and_behind_a_link(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = create_key_file(path, ORIGIN)
    path.chmod(0o400)
    (tmp_path / "link").symlink_to(path)
    assert read_key_file(tmp_path / "link").key == key


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_key_file(tmp_path / "none")
    with pytest.raises(KeyFileError, match="Is a directory"):
        read_key_file(tmp_path)
    with pytest.raises(KeyFileError, match="no regular file"):
        read_key_file(Path(os.devnull))
    with pytest.raises(KeyFileError, match="cannot write"):
        create_key_file(tmp_path / "none" / "key", ORIGIN)


@pytest.mark.parametrize("damage", ["", "x", "\x00", "id", "seed"])
def test_a_damaged_key_is_refused_and_not_shown(tmp_path: Path, damage: str) -> None:
    signer = Ed25519Signer(ORIGIN, SEED)
    text = private_key_text(signer.key, SEED)
    if damage == "id":
        damage = private_key_text(Ed25519Signer(ORIGIN, bytes(32)).key, SEED)
    elif damage == "seed":
        damage = private_key_text(signer.key, bytes(31) + b"\1")
    path = tmp_path / "key"
    path.write_text(damage)
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as refusal:
        read_key_file(path)
    assert text.rpartition("+")[2] not in str(refusal.value)
    path.write_text(text)
    assert read_key_file(path).key == signer.key


def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away, and root's tests are CI's")
    path = tmp_path / "key"
    create_key_file(path, ORIGIN)
    os.chown(path, 12345, 12345)
    with pytest.raises(KeyFileError, match="another user"):
        read_key_file(path)
