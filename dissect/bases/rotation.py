"""Random rotations, their fractional powers, and random directions: NumPy, float64, from a seed."""

import numpy as np


def random_rotation(units: int, seed: int) -> np.ndarray:
    """Q [U, U], Haar-distributed over the rotations (determinant +1).

    QR of a normal matrix with the signs of R's diagonal made positive, which makes Q Haar over O(U) (Mezzadri 2007);
    where the determinant is -1 the first row is negated, as in the published code.
    """
    q, r = np.linalg.qr(np.random.RandomState(seed).standard_normal((units, units)))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    if np.linalg.det(q) < 0:
        q[0] = -q[0]
    return q


def power(rotation: np.ndarray, alpha: float) -> np.ndarray:
    """Q^alpha = exp(alpha log Q) on the shortest way from the identity: Q^0 = I and Q^1 = Q exactly.

    An orthogonal matrix is normal: it has orthonormal eigenvectors, and eigenvalues exp(i t) whose angles t in
    (-pi, pi) are scaled by alpha. Newton's iteration takes off what rounding leaves of non-orthogonality.
    """
    if alpha == 0:
        return np.eye(len(rotation))
    if alpha == 1:
        return rotation.copy()
    values, vectors = np.linalg.eig(rotation)
    scaled = vectors * np.exp(1j * alpha * np.angle(values)) @ vectors.conj().T
    result = scaled.real
    for _ in range(2):
        result = 1.5 * result - 0.5 * result @ result.T @ result
    return result


def random_directions(units: int, count: int, seed: int) -> np.ndarray:
    """[count, units]: unit vectors, uniform over the sphere, not orthogonal to each other."""
    found = np.random.RandomState(seed).standard_normal((count, units))
    return found / np.linalg.norm(found, axis=1, keepdims=True)
