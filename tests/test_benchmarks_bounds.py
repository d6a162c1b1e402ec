"""benchmarks/bounds.py: what it sums up is what the kernels have to move."""

import pytest

from benchmarks import bounds, problem, timing
from benchmarks.cases import Case


@pytest.mark.parametrize("prefix", bounds.CELLS)
def test_the_cells_are_cases(prefix):
    case = bounds.find(prefix)
    assert case.direction == "backward" and case.wrt == ("input", "warp")


def test_bytes_of_a_grid():
    case = Case("smooth", (2, 3, 4, 5), size=(7, 11), direction="backward")
    image, grid, output = 4 * 2 * 3 * 4 * 5, 4 * 2 * 7 * 11 * 2, 4 * 2 * 3 * 7 * 11
    forward, splat, grad_warp = (
        image + grid + output,
        output + grid + image,
        output + image + 2 * grid,
    )
    assert bounds.bytes_moved(problem.build(case)) == forward + splat + grad_warp


def test_bytes_of_a_warp():
    case = Case("affine", (2, 3, 4, 5), size=(7, 11), direction="backward", dtype="float16")
    image, output = 2 * 2 * 3 * 4 * 5, 2 * 2 * 3 * 7 * 11
    assert bounds.bytes_moved(problem.build(case)) == 3 * (image + output)


@pytest.mark.parametrize("op", ("affine", "smooth"))
def test_every_column_is_measured(op):
    case = Case(op, (2, 3, 16, 17), direction="backward")
    numbers = bounds.measure(case, timing.Effort(1, 0.0, 1e-4))
    assert all(numbers[column] > 0 for column in bounds.COLUMNS)
