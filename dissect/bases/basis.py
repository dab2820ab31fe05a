"""A basis and how maps are read through it, with the same bits whatever adds them up."""

import hashlib
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dissect.errors import SpecError

BITS = 53  # of a float64: sums of integers below 2^53 are exact
CHUNK = 4 << 20  # float64 values worked on at a time
MAX_DIRECTIONS = 65_536


class Basis:
    """D directions in the space of U units; maps [B, h, w, U] go in, [B, h, w, D] come out.

    Every sum is exact, so its order cannot matter: activations and directions enter as integers of as many bits as
    leave room for U products in the 53 bits of a float64 (22 and 23 bits at 256 units, 21 and 21 at 2,048), each
    place and each direction on a scale of its own, a power of two. Thread counts, batch sizes, BLAS libraries and
    devices therefore give the same float32 bits. Rounded are the entries, by 2^-22 of the largest, and once the result.

    A place where some unit is NaN or infinite is NaN in every direction that reads this unit.
    """

    def __init__(self, directions: np.ndarray) -> None:
        """directions [D, U], any float. Raises SpecError for what is no basis."""
        if directions.ndim != 2 or not directions.size or not np.issubdtype(directions.dtype, np.floating):
            raise SpecError(
                f"a basis is a matrix [directions, units] of floats, found {directions.dtype} {list(directions.shape)}"
            )
        if len(directions) > MAX_DIRECTIONS:
            raise SpecError(f"a basis has {len(directions):,} directions: at most {MAX_DIRECTIONS:,} are possible")
        largest = np.maximum(directions.max(axis=1), -directions.min(axis=1)).astype(np.float64)
        if not np.isfinite(largest).all():
            raise SpecError(
                f"direction {int((~np.isfinite(largest)).argmax())} of the basis holds NaN or infinite values"
            )
        if not largest.all():
            raise SpecError(f"direction {int((largest == 0).argmax())} of the basis is zero: it reads no unit")
        room = BITS - max(directions.shape[1] - 1, 0).bit_length()
        self._direction_bits, self._map_bits = room // 2, room - room // 2
        self._exponent = np.frexp(largest)[1].astype(np.int64)
        self._whole = np.array(directions.T, np.float64, order="C")  # [U, D], as it is multiplied: much memory, once
        np.ldexp(self._whole, self._direction_bits - self._exponent, out=self._whole)
        np.round(self._whole, out=self._whole)
        self._identity = bool(np.array_equal(directions, np.eye(directions.shape[1])))
        self._kept: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def units(self) -> int:
        """D: units that the layer has when it is seen through the basis."""
        return int(self._whole.shape[1])

    @property
    def reads(self) -> int:
        """U: units of the layer that it is for."""
        return len(self._whole)

    @property
    def directions(self) -> np.ndarray:
        """[D, U] float64, as they are used."""
        return np.ldexp(self._whole, self._exponent - self._direction_bits).T

    @cached_property
    def sha256(self) -> str:
        """Of the directions as they are used."""
        return hashlib.sha256(np.ascontiguousarray(self.directions, "<f8").data).hexdigest()

    def __call__(self, maps: Tensor) -> Tensor:
        """maps [B, h, w, U] float32 -> [B, h, w, D] float32, on the same device. Raises SpecError for another U."""
        if maps.shape[-1] != self.reads:
            raise SpecError(f"the basis is for a layer of {self.reads} units, this one has {maps.shape[-1]}")
        if self._identity:
            return maps
        places = maps.reshape(-1, self.reads)
        whole, scale = self._on(maps.device)
        out = torch.empty(len(places), self.units, dtype=torch.float32, device=maps.device)
        step = max(1, CHUNK // (self.units + self.reads))
        for start in range(0, len(places), step):
            part = slice(start, start + step)
            out[part] = self._read(places[part].double(), whole, scale)
        return out.reshape(*maps.shape[:-1], self.units)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Integers [U, D] and scales [D] of the directions, kept on each device; on the CPU no copy."""
        if device not in self._kept:
            exponent = torch.from_numpy(self._exponent - self._direction_bits)
            self._kept[device] = (
                torch.from_numpy(self._whole).to(device),
                _power_of_two(exponent).to(device),
            )
        return self._kept[device]

    def _read(self, places: Tensor, whole: Tensor, scale: Tensor) -> Tensor:
        """[P, U] float64 -> [P, D] float64."""
        sound = places.isfinite()
        bad: Tensor | None = None
        if not sound.all():
            bad = ((~sound).double() @ (whole != 0).double()) > 0
            places = places.where(sound, 0.0)
        exponent = torch.frexp(places.abs().amax(dim=1, keepdim=True)).exponent.long()
        integers = torch.round(places * _power_of_two(self._map_bits - exponent))
        out = (integers @ whole) * scale * _power_of_two(exponent - self._map_bits)
        return out if bad is None else out.masked_fill(bad, torch.nan)


def _power_of_two(exponent: Tensor) -> Tensor:
    """2 ** exponent as float64, put together from its bits: exact on every device."""
    return ((exponent + 1023) << 52).view(torch.float64)
