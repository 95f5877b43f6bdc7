"""The bytes of sealed records."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from taskcred.domain.secret import Secret
from taskcred.errors import IntegrityError
from taskcred.vaults.master_key import MasterKey
from taskcred.vaults.sealed import key_id_of, open_sealed, seal

# Not a key of anything: counting bytes, so that the vectors below can be made again from this page alone.
COUNTING = bytes(range(32))
NONCE = bytes(range(100, 112))


def test_golden_vector_of_a_sealed_record() -> None:
    """Made by this code and made again below by the cipher's low-level interface. It must never change:
    vaults out there hold such bytes."""
    sealed = seal(AESGCM(COUNTING), 7, "credentials/c/k", Secret("text"), NONCE)
    assert sealed.hex() == "01000000076465666768696a6b6c6d6e6f3c7ea612198e0a15fae3cebdb8f53eacf0f1afcc"

    low_level = Cipher(algorithms.AES(COUNTING), modes.GCM(NONCE)).encryptor()
    low_level.authenticate_additional_data(
        b"taskcred vault record\x00" + b"\x01\x00\x00\x00\x07" + b"credentials/c/k"
    )
    text = low_level.update(b"text") + low_level.finalize()
    assert sealed == b"\x01\x00\x00\x00\x07" + NONCE + text + low_level.tag
    assert open_sealed({7: AESGCM(COUNTING)}, "credentials/c/k", sealed) == Secret("text")


def test_golden_vector_of_a_wrapped_data_key() -> None:
    master = MasterKey(COUNTING)
    wrapped = master.wrap(7, COUNTING[::-1], NONCE)
    assert master.id == "b9a4709a0e490be6"
    assert (
        wrapped.hex()
        == "016465666768696a6b6c6d6e6f5705c37a62f34f8629744afcc9777bed4dcc0b068066fa7aa0d7a94cf8a1a44815dee571f0f082f7524b92f758521138"
    )
    assert master.unwrap(7, wrapped) == COUNTING[::-1]


paths = st.text(min_size=1, max_size=60).filter(lambda path: path.isprintable())


@given(
    path=paths,
    text=st.text(max_size=200).filter(lambda text: text.isprintable()),
    key_id=st.integers(1, 2**32 - 1),
)
def test_a_record_opens_to_what_was_sealed(path: str, text: str, key_id: int) -> None:
    cipher = AESGCM(os.urandom(32))
    sealed = seal(cipher, key_id, path, Secret(text), os.urandom(12))
    assert key_id_of(sealed) == key_id
    assert open_sealed({key_id: cipher}, path, sealed) == Secret(text)


@given(path=paths, other=paths)
def test_a_record_opens_under_its_own_path_only(path: str, other: str) -> None:
    cipher = AESGCM(os.urandom(32))
    sealed = seal(cipher, 1, path, Secret("text"), os.urandom(12))
    if path != other:
        with pytest.raises(IntegrityError):
            open_sealed({1: cipher}, other, sealed)


@given(data=st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    cipher = AESGCM(os.urandom(32))
    sealed = bytearray(seal(cipher, 1, "a/b", Secret("text"), os.urandom(12)))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((IntegrityError, KeyError)):  # KeyError: it names another data key now
        open_sealed({1: cipher}, "a/b", bytes(sealed))


@pytest.mark.parametrize("damaged", [b"", b"\x01", b"\x02" + bytes(40), b"\x01" + bytes(31)])
def test_what_is_no_record_is_refused(damaged: bytes) -> None:
    with pytest.raises(IntegrityError):
        key_id_of(damaged)


@given(data=st.data())
def test_a_wrapped_data_key_opens_under_its_own_id_and_master_key_only(data: st.DataObject) -> None:
    master, data_key = MasterKey(os.urandom(32)), os.urandom(32)
    wrapped = bytearray(master.wrap(1, data_key, os.urandom(12)))
    assert master.unwrap(1, bytes(wrapped)) == data_key
    with pytest.raises(IntegrityError):
        master.unwrap(2, bytes(wrapped))
    with pytest.raises(IntegrityError):
        MasterKey(os.urandom(32)).unwrap(1, bytes(wrapped))
    wrapped[data.draw(st.integers(0, len(wrapped) - 1))] ^= 1
    with pytest.raises(IntegrityError):
        master.unwrap(1, bytes(wrapped))


def test_a_master_key_shows_its_id_and_nothing_else() -> None:
    raw = os.urandom(32)
    shown = repr(MasterKey(raw))
    assert MasterKey(raw).id in shown
    assert raw.hex() not in shown
    assert MasterKey(raw).id not in raw.hex()
