"""Interpolate small fields at many places: separable cubic interpolation by products of small matrices."""

import numpy as np

_FINER = 4


def cubic_matrix(positions_N: np.ndarray, size: int) -> np.ndarray:
    """Weights that interpolate a row of `size` samples at `positions_N`, float32 [N, size].

    This is the cubic of Mitchell & Netravali (1988, B = C = 1/3), their compromise between blur and ripples at the
    sampling frequency. Beyond the first and last sample, the outermost one is repeated.

    Args:
        positions_N: in samples; sample i lies at i + 1/2, so that 0 and `size` are the row's two ends.
    """
    at_N = np.asarray(positions_N, dtype=np.float64) - 0.5
    first_N = np.floor(at_N).astype(np.int64) - 1
    out = np.zeros((len(at_N), size), dtype=np.float32)
    rows_N = np.arange(len(at_N))
    for tap in range(4):
        distance_N = np.abs(at_N - (first_N + tap))
        near_N = ((7 * distance_N - 12) * distance_N**2 + 16 / 3) / 6
        far_N = (((12 - 7 / 3 * distance_N) * distance_N - 20) * distance_N + 32 / 3) / 6
        weight_N = np.where(distance_N <= 1, near_N, np.where(distance_N < 2, far_N, 0.0))
        np.add.at(out, (rows_N, np.clip(first_N + tap, 0, size - 1)), weight_N.astype(np.float32))
    return out


def box_mean(planes: np.ndarray, radius: int) -> np.ndarray:
    """Mean over each pixel's window of (2·radius+1)² pixels, truncated at the borders; planes are [..., H, W]."""
    for axis in (-2, -1):
        length = planes.shape[axis]
        first = np.clip(np.arange(length) - radius, 0, length)
        last = np.clip(np.arange(length) + radius + 1, 0, length)
        sums = np.cumsum(planes, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
        shape = [1] * planes.ndim
        shape[axis] = length
        planes = (sums.take(last, axis) - sums.take(first, axis)) / (last - first).reshape(shape)
    return planes


def read_fields(fields_KSS: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Interpolate fields at places in the unit square, float32 [K,H,W]; outside, the outermost samples are repeated.

    Only the samples near these places are touched, so a tile of a large photograph costs little.

    Args:
        u, v: places from left to right and top to bottom; [1,W] and [H,1] if they are separable, else [H,W] each.
    """
    size = fields_KSS.shape[-1]
    (columns, u), (rows, v) = _window(u * size, size), _window(v * size, size)
    near_KSS = fields_KSS[:, rows, columns]
    height, width = near_KSS.shape[1:]
    if u.shape[0] == 1 and v.shape[1] == 1:
        return _separable(near_KSS, cubic_matrix(v[:, 0], height), cubic_matrix(u[0], width))
    # Rotated square: the same cubic gives a finer grid, on which linear interpolation is accurate enough.
    fine_V, fine_U = (np.arange(length * _FINER + 1) / _FINER for length in (height, width))
    fine_KVU = _separable(near_KSS, cubic_matrix(fine_V, height), cubic_matrix(fine_U, width))
    return _bilinear(np.ascontiguousarray(fine_KVU.transpose(1, 2, 0)), u * _FINER, v * _FINER).transpose(
        2, 0, 1
    )


def _window(positions: np.ndarray, size: int) -> tuple[slice, np.ndarray]:
    """The samples that cubic interpolation at these positions needs, and the positions relative to the first."""
    first = int(np.clip(np.floor(positions.min()) - 2, 0, size - 1))
    last = int(np.clip(np.ceil(positions.max()) + 2, first + 1, size))
    return slice(first, last), positions - first


def _bilinear(grid_VUK: np.ndarray, u_HW: np.ndarray, v_HW: np.ndarray) -> np.ndarray:
    """Bilinear interpolation between a grid's nodes, [H,W,K]; outside the grid, clamped to its border."""
    height, width, _ = grid_VUK.shape
    u_HW, v_HW = np.clip(u_HW, 0, width - 1), np.clip(v_HW, 0, height - 1)
    left_HW = np.minimum(u_HW.astype(np.int64), width - 2)
    top_HW = np.minimum(v_HW.astype(np.int64), height - 2)
    right_HW1 = (u_HW - left_HW).astype(np.float32)[..., None]
    down_HW1 = (v_HW - top_HW).astype(np.float32)[..., None]
    out_HWK = grid_VUK[top_HW, left_HW] * ((1 - down_HW1) * (1 - right_HW1))
    out_HWK += grid_VUK[top_HW, left_HW + 1] * ((1 - down_HW1) * right_HW1)
    out_HWK += grid_VUK[top_HW + 1, left_HW] * (down_HW1 * (1 - right_HW1))
    out_HWK += grid_VUK[top_HW + 1, left_HW + 1] * (down_HW1 * right_HW1)
    return out_HWK


def _separable(fields_KSS: np.ndarray, down_HS: np.ndarray, across_WS: np.ndarray) -> np.ndarray:
    """Multiply fields by one matrix on either side, [K,H,W].

    This uses einsum, which is single-threaded: with matrices this small, BLAS spends far more time on distributing
    the work to threads than on computing, the more so if several tiles are processed at the same time.
    """
    rows_KHS = np.einsum("hs,ksw->khw", down_HS, fields_KSS)
    return np.einsum("khs,sw->khw", rows_KHS, np.ascontiguousarray(across_WS.T))
