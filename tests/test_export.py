"""torch.export and AOTInductor: our ops in a saved program, the same bits as without."""

import subprocess
import sys

import pytest
import torch
from cases import channels_last, image, scattered_grid, thetas
from torch.export import Dim

import stn_cuda


class Affine(torch.nn.Module):
    """What a fused spatial transformer calls."""

    def forward(self, x, theta):
        warp = stn_cuda.Affine(theta)
        return (
            stn_cuda.sample(x, warp, (4, 5), padding_mode="border"),
            stn_cuda.sample(x, warp, mode="bicubic", align_corners=True),
            warp.grid((3, x.shape[3])),
        )


class Grid(torch.nn.Module):
    """What stands in the place of torch.nn.functional, and a grid for the whole batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("grid", scattered_grid(1, (4, 5)))

    def forward(self, x, theta):
        grid = stn_cuda.affine_grid(theta, x.shape, align_corners=False)
        return (
            stn_cuda.sample(x, grid, mode="nearest", padding_mode="reflection"),
            stn_cuda.grid_sample(x, self.grid, "bicubic", align_corners=True),
        )


def operands(batch, height, width):
    x = image((batch, 3, height, width))
    return x.contiguous(memory_format=channels_last(x)), thetas(batch, 2)


FIRST = operands(3, 6, 7)
OTHERS = (operands(5, 9, 4), operands(1, 6, 8))
BATCH = Dim("batch")
DYNAMIC_SHAPES = {"x": {0: BATCH, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, "theta": {0: BATCH}}


def assert_same(program, module):
    for args in (FIRST, *OTHERS):
        for output, expected in zip(program(*args), module(*args), strict=True):
            assert torch.equal(output, expected)
            assert output.stride() == expected.stride()


@pytest.mark.quick
@pytest.mark.parametrize("module", (Affine(), Grid()))
def test_saved_and_loaded(module, tmp_path):
    """Any batch, height and width; the ops stay as they are."""
    program = torch.export.export(module, FIRST, dynamic_shapes=DYNAMIC_SHAPES)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2")
    assert_same(loaded.module(), module)
    default = loaded.run_decompositions()
    ops = [node.target for node in default.graph.nodes if "stn_cuda" in str(node.target)]
    assert ops.count(torch.ops.stn_cuda.sample.default) == 2 and len(ops) == 3


@pytest.mark.quick
def test_strict():
    """Traced through Python's bytecode."""
    program = torch.export.export(Affine(), FIRST, strict=True)
    for output, expected in zip(program.module()(*FIRST), Affine()(*FIRST), strict=True):
        assert torch.equal(output, expected)


@pytest.mark.quick
@pytest.mark.parametrize("module", (Affine(), Grid()))
def test_named_dimensions(module):
    """They need no bounds: how long an axis may be is asked when the program runs."""
    shapes = {"x": {0: BATCH, 2: Dim("height"), 3: Dim("width")}, "theta": {0: BATCH}}
    program = torch.export.export(module, FIRST, dynamic_shapes=shapes)
    for output, expected in zip(program.module()(*FIRST), module(*FIRST), strict=True):
        assert torch.equal(output, expected)


LOAD = """
import sys
import torch
{imports}
model = torch._inductor.aoti_load_package(sys.argv[1])
print(*(tuple(y.shape) for y in model(*torch.load(sys.argv[2]))))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ahead_of_time(tmp_path):
    """AOTInductor: compiled to a package. Where it is loaded, stn_cuda must be imported."""
    for name, module in (("grid", Grid()), ("model", Affine())):
        program = torch.export.export(module, FIRST, dynamic_shapes=DYNAMIC_SHAPES)
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / f"{name}.pt2")
        )
        assert_same(torch._inductor.aoti_load_package(package), module)

    torch.save(FIRST, tmp_path / "operands.pt")

    def load(imports):
        code = LOAD.format(imports=imports)
        command = [sys.executable, "-c", code, package, tmp_path / "operands.pt"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    elsewhere = load("import stn_cuda")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert elsewhere.stdout.strip() == "(3, 3, 4, 5) (3, 3, 6, 7) (3, 3, 7, 2)"
    assert "Could not find schema for stn_cuda::sample" in load("").stderr
