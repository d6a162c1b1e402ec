"""README's matrix of what is supported: every cell is tried, and must say what was found."""

import re
from pathlib import Path

import pytest
import torch
from cases import image, scattered_grid, thetas
from torch.func import grad, hessian, jvp, vmap

import stn_cuda

README = Path(__file__).resolve().parent.parent / "README.md"
F64 = torch.float64
YES, NO = "yes", "no"

# Inductor's and the exporter's own code reads deprecated modules.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

X, THETA = image((2, 1, 4, 5), F64), thetas(2, 2, F64)
GRID = scattered_grid(2, (4, 5), F64)
TARGETS = scattered_grid(2, (3, 3), F64).flatten(1, 2)
FLOW = (3 * GRID).movedim(-1, 1)

# Row -> the function of (image, warp) and the operands.
FUNCTIONS = {
    "sample": (lambda x, t: stn_cuda.sample(x, stn_cuda.Affine(t), mode="bicubic"), (X, THETA)),
    "sample(Flow)": (lambda x, d: stn_cuda.sample(x, stn_cuda.Flow(d)), (X, FLOW)),
    "sample(wrap)": (
        lambda x, t: stn_cuda.sample(x, stn_cuda.Affine(t), padding_mode=("border", "wrap")),
        (X, THETA),
    ),
    "sample(fill, mask)": (
        lambda x, t: torch.cat(
            stn_cuda.sample(x, stn_cuda.Affine(t), fill=x.mean((0, 2, 3)), return_mask=True), 1
        ),
        (X, THETA),
    ),
    "sample_with_gradient": (
        lambda x, t: stn_cuda.sample_with_gradient(x, stn_cuda.Affine(t), mode="bicubic")[1],
        (X, THETA),
    ),
    "splat": (lambda x, t: stn_cuda.splat(x, stn_cuda.Affine(t), (6, 7)), (X, THETA)),
    "grid_sample": (
        lambda x, g: stn_cuda.grid_sample(x, g, mode="bicubic", align_corners=False),
        (X, GRID),
    ),
    "affine_grid": (
        lambda x, t: stn_cuda.affine_grid(t, x.shape, align_corners=False) * x.mean(),
        (X, THETA),
    ),
    "ThinPlateSpline": (
        lambda x, targets: stn_cuda.sample(x, stn_cuda.ThinPlateSpline(targets), mode="bicubic"),
        (X, TARGETS),
    ),
    "sample(Compose)": (
        lambda x, d: stn_cuda.sample(x, stn_cuda.Compose(stn_cuda.Affine(THETA), stn_cuda.Flow(d))),
        (X, FLOW),
    ),
    "Compose.grid": (
        lambda x, t: (
            stn_cuda.Compose(stn_cuda.Flow(FLOW), stn_cuda.Affine(t)).grid((3, 4)) * x.mean()
        ),
        (X, THETA),
    ),
    "Flow.grid": (lambda x, d: stn_cuda.Flow(d).grid() * x.mean(), (X, FLOW)),
    "Affine.grid": (lambda x, t: stn_cuda.Affine(t).grid((3, 4)) * x.mean(), (X, THETA)),
}


def loss_of(function):
    return lambda *operands: function(*operands).square().sum()


def backward(function, operands):
    leaves = [t.clone().requires_grad_() for t in operands]
    return torch.autograd.grad(loss_of(function)(*leaves), leaves)


def double_backward(function, operands):
    leaves = [t.clone().requires_grad_() for t in operands]
    first = torch.autograd.grad(loss_of(function)(*leaves), leaves, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)


def jvp_by_the_image(function, operands):
    x, warp = operands
    return jvp(lambda x: function(x, warp), (x,), (torch.ones_like(x),))


def jvp_by_the_warp(function, operands):
    x, warp = operands
    return jvp(lambda w: function(x, w), (warp,), (torch.ones_like(warp),))


def hessian_by_the_warp(function, operands):
    x, warp = operands
    return hessian(lambda w: loss_of(function)(x, w))(warp)


def mapped(function, operands):
    stacked = [torch.stack([t, t]) for t in operands]
    return vmap(function)(*stacked), vmap(grad(loss_of(function), 1))(*stacked)


def compiled(function, operands):
    torch._dynamo.reset()
    whole = torch.compile(function, fullgraph=True, backend="aot_eager")
    return backward(whole, operands)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, warp):
        return self.function(x, warp)


def exported(function, operands):
    return torch.export.export(Module(function), operands).module()(*operands)


def onnx(function, operands):
    return torch.onnx.export(Module(function), operands, dynamo=True, verbose=False)


# Column -> what tries it.
TRANSFORMS = {
    "backward": backward,
    "double backward": double_backward,
    "jvp, image": jvp_by_the_image,
    "jvp, warp": jvp_by_the_warp,
    "hessian": hessian_by_the_warp,
    "vmap": mapped,
    "compile": compiled,
    "export": exported,
    "ONNX": onnx,
}


def cells():
    """{(row, column): what README says}"""
    text = README.read_text()
    table = re.search(r"<!-- matrix -->\n(.*?)<!-- end of matrix -->", text, re.DOTALL)[1]
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.strip().splitlines()
    ]
    head, _, *rows = lines
    return {
        (row[0].strip("`"), column): cell
        for row in rows
        for column, cell in zip(head[1:], row[1:], strict=True)
    }


@pytest.mark.quick
def test_every_cell_is_there():
    assert set(cells()) == {(row, column) for row in FUNCTIONS for column in TRANSFORMS}


@pytest.mark.slow
@pytest.mark.parametrize("column", TRANSFORMS)
@pytest.mark.parametrize("row", FUNCTIONS)
def test_cell(row, column):
    function, operands = FUNCTIONS[row]
    try:
        TRANSFORMS[column](function, operands)
        found = YES
    except Exception as error:
        # In our words, or where the exporter knows no operator in its own.
        if not re.search("not implemented|No ONNX function found for .*stn_cuda", str(error)):
            raise
        found = NO
    assert cells()[row, column] == found
