"""The random numbers of JAX in numpy, so that k-means starts where scib-metrics starts.

Threefry-2x32 with 20 rounds (Salmon et al. 2011), keys split and bits drawn as
``jax.random`` does with ``jax_threefry_partitionable`` (its default since JAX 0.5).
"""

from __future__ import annotations

import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def seed_key(seed: int) -> np.ndarray:
    """Return the (2,) uint32 key of a seed, as ``jax.random.PRNGKey`` without x64."""
    if not -(2**31) <= seed < 2**31:
        raise ValueError(f"seed: found {seed}; valid: a 32-bit integer")
    return np.array([0, seed & 0xFFFFFFFF], dtype=np.uint32)


def _hash(key: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash the 64-bit counters 0..n-1 to two streams of 32 bits."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    count = np.arange(n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        a = (count >> np.uint64(32)).astype(np.uint32) + keys[0]
        b = count.astype(np.uint32) + keys[1]
        for block in range(5):
            for rotation in _ROTATIONS[block % 2]:
                a = a + b
                b = (b << np.uint32(rotation)) | (b >> np.uint32(32 - rotation))
                b = a ^ b
            a = a + keys[(block + 1) % 3]
            b = b + keys[(block + 2) % 3] + np.uint32(block + 1)
    return a, b


def split(key: np.ndarray, n: int = 2) -> np.ndarray:
    """Return (n, 2) new keys, as ``jax.random.split``."""
    return np.stack(_hash(key, n), axis=1)


def random_bits(key: np.ndarray, n: int) -> np.ndarray:
    """Return (n,) uint32 random bits, as ``jax.random.bits``."""
    a, b = _hash(key, n)
    return a ^ b


def permutation(key: np.ndarray, n: int) -> np.ndarray:
    """Return a random order of 0..n-1, as ``jax.random.permutation``."""
    order = np.arange(n)
    rounds = int(np.ceil(3 * np.log(max(1, n)) / np.log(np.iinfo(np.uint32).max)))
    for _ in range(rounds):
        key, subkey = split(key)
        order = order[np.argsort(random_bits(subkey, n), kind="stable")]
    return order


def gumbel(key: np.ndarray, n: int) -> np.ndarray:
    """Return (n,) standard Gumbel numbers in float32, as ``jax.random.gumbel``."""
    # 23 random mantissa bits make a float32 in 1..2; minus 1 it is uniform in 0..1.
    bits = (random_bits(key, n) >> np.uint32(9)) | np.float32(1).view(np.uint32)
    uniform = np.maximum(bits.view(np.float32) - np.float32(1), np.finfo(np.float32).tiny)
    return -np.log(-np.log(uniform))


def choice_without_replacement(key: np.ndarray, p: np.ndarray, n_draws: int) -> np.ndarray:
    """Draw indices with probabilities p (n,), none twice, as ``jax.random.choice``.

    Gumbel top-k: the largest of ``log p + Gumbel noise``, ties to the lower index.
    """
    with np.errstate(divide="ignore"):
        scores = gumbel(key, len(p)) + np.log(p.astype(np.float32))
    return np.argsort(-scores, kind="stable")[:n_draws]
