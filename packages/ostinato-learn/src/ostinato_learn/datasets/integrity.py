"""The shipped files, each checked against its SHA-256 when it is read."""

from __future__ import annotations

import hashlib

from ostinato.internal import needs

with needs("ostinato-learn[datasets]", "ostinato_datasets"):
    from ostinato_datasets import FILES

SHA256 = {
    "austen/emma.txt.gz": "20ec53e8cf90d81713c6c7cbd2622aebb147db64473eb11e6bce0d8e86c4cf74",
    "austen/mansfieldpark.txt.gz": (
        "84b7f4a6c606e833b5cebf68ce95bd60cd07193d09a2c51f0c7d8c41cb951909"
    ),
    "austen/northangerabbey.txt.gz": (
        "a427a192cf42da0d6e4d51a4e0958883d8b07b0575699539d3d30e5bb050eb86"
    ),
    "austen/persuasion.txt.gz": "323619e3e69a7d09e9179d3ba22ff53196c2cbf01810ce0eefc929ff5398e2f1",
    "austen/prideprejudice.txt.gz": (
        "96c4f90d77b6be0fdea103138decbbf0ecd10b15eec26a5927c9fb459a90cc7e"
    ),
    "austen/sensesensibility.txt.gz": (
        "b98e6534af4313bea0ac62ad565007aee27f8d8a4d2583d4000cf4bfc72ea205"
    ),
    "mnist/t10k-images-idx3-ubyte.gz": (
        "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be"
    ),
    "mnist/t10k-labels-idx1-ubyte.gz": (
        "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b"
    ),
    "mnist/train-images-idx3-ubyte.gz": (
        "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"
    ),
    "mnist/train-labels-idx1-ubyte.gz": (
        "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"
    ),
    "vowels/JapaneseVowels_TEST.ts.gz": (
        "b2defceea4a3b652e3807872472d2d333d9246c05fc0cc7bbbe9494d52c70366"
    ),
    "vowels/JapaneseVowels_TRAIN.ts.gz": (
        "db1a95abb817aaa4d3ab941ffc48107d1a4dbca63cf30c739b3a72de7c4e7091"
    ),
}


def shipped(name: str) -> bytes:
    """The bytes of a shipped file.

    Args:
        name: a key of `SHA256`.

    Raises:
        OSError: the file is missing from the installation, or is not the one that was shipped.
    """
    path = FILES / name
    if not path.is_file():
        raise OSError(f"{path} is missing; reinstall ostinato")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        raise OSError(
            f"{path} is damaged: its SHA-256 is {digest}, wanted {SHA256[name]}; reinstall ostinato"
        )
    return data
