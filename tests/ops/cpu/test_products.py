"""The products against a float64 NumPy product of the unpacked weight, for every format, at sizes that need padding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

import llvmlite.binding as llvm

from receptance.ops.cpu import activations
from receptance.ops.cpu.products import BY_INPUT, INT4, INT8, dequantize, product

from .packing import KINDS, Matrix, random_matrix

SIZES = [(1, 32), (17, 96), (100, 32), (300, 2080)]
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_size = pytest.mark.parametrize("num_out, num_in", SIZES, ids=lambda size: str(size))


def inputs(num_rows: int, num_in: int, zeros: float = 0.0) -> torch.Tensor:
    """Activations with outliers, a group of zeros, and a share of single zeros of both signs."""
    torch.manual_seed(0)
    x = torch.randn(num_rows, num_in)
    x[:, ::37] *= 20
    x[torch.rand(num_rows, num_in) < zeros] = 0
    x[torch.rand(num_rows, num_in) < zeros / 4] = -0.0
    x[-1, :32] = 0
    return x


def rounded(x: np.ndarray) -> np.ndarray:
    """x in int8 with a scale for each group of 32."""
    groups = x.reshape(len(x), -1, 32)
    largest = np.abs(groups).max(2, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    return (np.rint(groups / scale).astype(np.float64) * scale).reshape(x.shape)


def expected(x: torch.Tensor, matrix: Matrix) -> np.ndarray:
    """The product in float64."""
    values = rounded(x.numpy()) if matrix.kind in (INT8, INT4) else x.numpy().astype(np.float64)
    return values @ matrix.meaning.T


def assert_near(result: torch.Tensor, truth: np.ndarray, x: torch.Tensor, matrix: Matrix) -> None:
    """Every output within the rounding error of a float32 sum of its terms."""
    bound = np.abs(x.double().numpy()) @ np.abs(matrix.meaning.T) * 2e-6 + 1e-30
    assert result.shape == truth.shape
    assert (np.abs(result.double().numpy() - truth) <= bound).all()


@every_kind
@every_size
@pytest.mark.parametrize("num_rows", [1, 2, 7, 32])
def test_a_product_is_that_of_the_unpacked_weight(kind: int, num_out: int, num_in: int, num_rows: int) -> None:
    matrix, x = random_matrix(kind, num_out, num_in), inputs(num_rows, num_in)
    result = product(x, *matrix.arguments)
    assert_near(result, expected(x, matrix), x, matrix)


@every_kind
@pytest.mark.parametrize("zeros", [0.0, 0.5, 1.0])
def test_a_row_does_not_depend_on_its_neighbours_nor_on_the_number_of_threads(kind: int, zeros: float) -> None:
    matrix, x = random_matrix(kind, 300, 2080), inputs(32, 2080, zeros)
    together = product(x, *matrix.arguments)
    for first, count in [(0, 1), (31, 1), (3, 2), (5, 3), (9, 7), (11, 16)]:
        assert torch.equal(product(x[first : first + count], *matrix.arguments), together[first : first + count])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(product(x, *matrix.arguments), together)
    finally:
        torch.set_num_threads(threads)


@every_kind
@pytest.mark.parametrize("num_rows", [1, 5])
@pytest.mark.parametrize("zeros", [0.0, 0.6, 0.9, 1.0])
def test_skipping_zeros_changes_no_bit(kind: int, num_rows: int, zeros: float) -> None:
    matrix, x = random_matrix(kind, 200, 1000 if kind >= BY_INPUT else 992), inputs(num_rows, 1000, zeros)
    x = x[:, : matrix.num_in].contiguous()
    skipped, read = (product(x, *matrix.arguments, skip=skip) for skip in (True, False))
    assert torch.equal(skipped, read) and torch.equal(skipped.signbit(), read.signbit())
    assert_near(read, expected(x, matrix), x, matrix)


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind >= BY_INPUT])
def test_rows_of_zero_inputs_are_not_read(kind: int) -> None:
    matrix, x = random_matrix(kind, 130, 64), inputs(3, 64)
    clean = product(x, *matrix.arguments)
    x[:, 4:60] *= torch.arange(4, 60) % 5 == 0
    zeroed = product(x, *matrix.arguments)
    assert not torch.equal(clean, zeroed)
    # What the rows hold does not matter, not even where it is no number.
    spoilt = matrix.scales if matrix.scales is not None else matrix.weights
    spoilt[:, 4:60][:, torch.arange(4, 60) % 5 != 0] = torch.nan
    assert torch.equal(product(x, *matrix.arguments, skip=True), zeroed)
    assert product(x, *matrix.arguments, skip=False).isnan().any()


@every_kind
def test_a_bias_is_added(kind: int) -> None:
    matrix, x, bias = random_matrix(kind, 33, 64), inputs(5, 64), torch.randn(33)
    assert torch.equal(product(x, *matrix.arguments, bias=bias), product(x, *matrix.arguments) + bias)


@every_kind
@pytest.mark.parametrize("num_out, num_in", [(17, 96), (300, 992)], ids=str)
def test_dequantized_is_the_weight_that_the_format_stands_for(kind: int, num_out: int, num_in: int) -> None:
    matrix = random_matrix(kind, num_out, num_in)
    single = dequantize(*matrix.arguments, torch.float32)
    assert single.shape == (num_out, num_in) and single.is_contiguous()
    np.testing.assert_array_equal(single.double().numpy(), matrix.meaning)
    half = dequantize(*matrix.arguments, torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half, single.bfloat16())
    for start, stop in [(0, 5), (3, 17), (num_out - 2, num_out)]:
        assert torch.equal(dequantize(*matrix.arguments, torch.float32, rows=(start, stop)), single[start:stop])


def test_activations_are_rounded_to_even_in_groups_of_32() -> None:
    x = inputs(3, 96).numpy()
    x[0, :4] = [127.0, 2.5, 3.5, -2.5]
    x[0, 4:32] = 0
    xq = np.empty((3, 96), np.int8)
    scale, sums = np.empty((3, 3), np.float32), np.empty((3, 3), np.int32)
    activations.round_activations(x, xq, scale, sums)
    assert xq[0, :5].tolist() == [127, 2, 4, -2, 0]
    assert scale[2, 0] == 0 and not xq[2, :32].any()
    np.testing.assert_array_equal(sums, xq.reshape(3, 3, 32).sum(2, dtype=np.int32))
    np.testing.assert_allclose(xq * np.repeat(scale, 32, axis=1), rounded(x), rtol=1e-6, atol=0)


# A processor without any extension, and one with dot products of bytes in 256 bits.
PROCESSORS = {"generic": "", "haswell": "+sse4.2,+avx2,+fma,+f16c,+avxvnni"}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_other_processors_compute_the_same(processor: str, tmp_path: Path) -> None:
    host, features = llvm.get_host_cpu_features(), PROCESSORS[processor]
    if not all(host.get(feature[1:]) for feature in features.split(",") if feature):
        pytest.skip(f"this processor cannot run code for {processor}")
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CACHE_DIR": str(tmp_path)}
    if features:
        environment["NUMBA_CPU_FEATURES"] = features
    chosen = "unpacked_weight and 17-96 or changes_no_bit and 5 or dequantized and 17-96"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout and "skipped" not in run.stdout
