"""torch.onnx.export: standard operators, with which onnxruntime computes what our kernels do."""

import io
import subprocess
import sys

import onnxruntime
import pytest
import torch
from accuracy import Checks, forward_bound, smooth_points
from cases import (
    CONFIGURATIONS,
    DTYPES,
    FREE,
    Call,
    channels_last,
    image,
    sample_inputs,
    scattered_grid,
    thetas,
)
from torch.export import Dim

import stn_cuda

OPS = torch.ops.stn_cuda
BICUBIC_VOLUME = "sample: mode 'bicubic' must be used with a 4-D input"


class Calls(torch.nn.Module):
    """Many calls of sample in one model: exporting costs seconds.

    Half precision is made within the model, and left again, since numpy has no bfloat16.
    """

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, operands):
        return [
            call.run(x.to(call.input.dtype), warp.to(call.warp.dtype)).double()
            for call, (x, warp) in zip(self.calls, operands, strict=True)
        ]


def outside(tensor):
    """The tensor as the model is given it."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def export(model, args, **options):
    return torch.onnx.export(model, args, dynamo=True, verbose=False, **options)


def run(program, *tensors):
    """What onnxruntime makes of an exported program. All operators are the standard's."""
    assert {node.domain for node in program.model.graph} == {""}
    serialized = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
    feed = {i.name: t.numpy() for i, t in zip(session.get_inputs(), tensors, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, feed)]


def check_calls(calls, **options):
    calls = list(calls)
    operands = [(outside(call.input), outside(call.warp)) for call in calls]
    program = export(Calls(calls).eval(), (operands,), **options)
    outputs = run(program, *(tensor for pair in operands for tensor in pair))
    with Checks() as checks:
        for call, output in zip(calls, outputs, strict=True):
            expected = call.expect()
            bound = forward_bound(call, expected)
            if call.mode == "nearest":
                bound = torch.where(smooth_points(call).unsqueeze(1), bound, torch.inf)
            checks.close(output, expected, bound, str(call))
    return program


def samplers(program):
    return [node for node in program.model.graph if node.op_type == "GridSample"]


@pytest.mark.slow
def test_every_mode():
    """Every mode x padding x align_corners x map, images and volumes."""
    program = check_calls(
        sample_inputs(torch.float32, configurations=CONFIGURATIONS), opset_version=20
    )
    assert program.model.opset_imports[""] == 20
    assert len(samplers(program)) == 2 * len(CONFIGURATIONS)
    assert {n.attributes["mode"].value for n in samplers(program)} == {"linear", "nearest", "cubic"}


def test_free_maps():
    """Flows and grids in pixels, through the grid."""
    calls = list(sample_inputs(torch.float32, maps=FREE[1:], configurations=CONFIGURATIONS))[::5]
    assert {(c.map, c.align_corners) for c in calls} == {(m, a) for m in FREE[1:] for a in (0, 1)}
    check_calls(calls, opset_version=20)


def test_opset_18():
    """Before opset 20 the modes have other names, and there is no AffineGrid."""
    calls = [c for c in sample_inputs(torch.float32) if c.dims == 2 and c.padding_mode == "border"]
    program = check_calls(calls, opset_version=18)
    assert program.model.opset_imports[""] == 18
    modes = {node.attributes["mode"].value for node in samplers(program)}
    assert modes == {"bilinear", "nearest", "bicubic"}


@pytest.mark.slow
def test_dtypes_and_batches():
    """Any dtype of the image with any of the warp, one of them broadcast.

    onnxruntime has no GridSample of mixed dtypes and, on the CPU, none of bfloat16.
    """
    calls = []
    for k, of_image in enumerate(DTYPES):
        for j, of_warp in enumerate(DTYPES):
            pixels = image((3 if k % 2 else 1, 2, 5, 6), of_image)
            batch = 3 if j % 2 or not k % 2 else 1
            grid = scattered_grid(batch, (4, 3), of_warp)
            calls.append(Call(pixels, grid, padding_mode="reflection"))
            calls.append(Call(pixels, thetas(batch, 2, of_warp), "affine", (3, 4), "bicubic"))
    check_calls(calls, opset_version=20)


@pytest.mark.quick
def test_single_points_and_ties():
    """Extents of 1, where ONNX' own AffineGrid errs, and halves, which `nearest` rounds to even."""
    calls = []
    for align in (False, True):
        for size in ((1, 4), (3, 1), (1, 1)):
            plane = image((2, 1, 4, 5)), thetas(2, 2)
            calls.append(Call(*plane, "affine", size, align_corners=align))
        volume = image((1, 2, 3, 1, 4)), thetas(1, 3)
        calls.append(Call(*volume, "affine", (1, 2, 1), align_corners=align))
        calls.append(Call(image((1, 2, 1, 1)), scattered_grid(1, (3, 3)), align_corners=align))
    check_calls(calls)

    halves = torch.arange(-4, 5) / 4  # the pixels 0, 0.5 ... 4 of 5
    grid = torch.stack(torch.meshgrid(halves, halves, indexing="xy"), -1).unsqueeze(0)
    ties = Call(image((1, 2, 5, 5)), grid, mode="nearest", align_corners=True)
    (output,) = run(export(Calls([ties]).eval(), ([(ties.input, grid)],)), ties.input, grid)
    assert torch.equal(output, ties.run().double())


class Splines(torch.nn.Module):
    def __init__(self, places=None):
        super().__init__()
        self.places = places

    def forward(self, x, targets):
        return stn_cuda.sample(x, stn_cuda.ThinPlateSpline(targets, self.places, 0.1), (5, 6))


# That two inputs share the dimension `batch`.
@pytest.mark.filterwarnings("ignore:# The axis name. batch:UserWarning")
def test_thin_plate_splines():
    """The kernels' parameters, and the system of the default control points, for any batch."""
    calls = list(
        sample_inputs(torch.float32, maps=("thin_plate_spline",), configurations=CONFIGURATIONS)
    )
    check_calls(calls[1::4])
    places = stn_cuda.ThinPlateSpline.control_grid((3, 3))

    def operands(batch):
        return image((batch, 2, 9, 8)), places + 0.2 * image((batch, 9, 2))

    shapes = {"x": {0: Dim("batch")}, "targets": {0: Dim("batch")}}
    program = export(Splines().eval(), operands(2), dynamic_shapes=shapes)
    for batch in (2, 5):
        x, targets = operands(batch)
        (output,) = run(program, x, targets)
        parameters = stn_cuda.reference.thin_plate_spline(targets, places, 0.1)
        call = Call(x, parameters.float(), "thin_plate_spline", (5, 6))
        expected = call.expect()
        assert ((output.double() - expected).abs() <= forward_bound(call, expected)).all()
    with pytest.raises(Exception, match="No ONNX function found for .*linalg_solve"):
        export(Splines(places).eval(), operands(2))


class Dynamic(torch.nn.Module):
    """Every function, with sizes that depend on the input's."""

    def forward(self, x, theta, grid):
        warp = stn_cuda.Affine(theta)
        first = stn_cuda.Affine(theta[:1])
        height, width = x.shape[2:]
        written = stn_cuda.affine_grid(theta, x.shape, align_corners=False)
        return (
            stn_cuda.sample(x, warp, mode="bicubic", padding_mode="border", align_corners=True),
            stn_cuda.sample(x, first, (height // 2, 2 * width)),
            stn_cuda.sample(x[:1], grid, padding_mode="reflection"),
            stn_cuda.grid_sample(x, written, align_corners=False),
            warp.grid((height, 5), align_corners=True),
        )


def dynamic_operands(batch, height, width):
    return image((batch, 2, height, width)), thetas(batch, 2), scattered_grid(batch, (4, 5))


DYNAMIC_SHAPES = {
    "x": {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},
    "theta": {0: Dim("batch")},
    "grid": {0: Dim("batch")},
}


def check_dynamic(outputs, operands):
    """Against the eager module, whose coordinates are rounded elsewhere."""
    size = max(operands[0].shape[2:])
    # A coordinate of up to 4 differs by some 8 roundings, a pixel's by size / 2 times that, and
    # the value by up to 3 times the largest pixel times that, per axis (accuracy.py).
    tolerance = 2 * 3 * 4 * 8 * size * 2.0**-24 * operands[0].abs().max().item()
    for output, expected in zip(outputs, Dynamic()(*operands), strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=tolerance)


SIZES = ((3, 6, 7), (5, 9, 4), (1, 6, 8))


# That two inputs share the dimension `batch`.
@pytest.mark.filterwarnings("ignore:# The axis name. batch:UserWarning")
def test_dynamic_shapes():
    """One model for any batch, 1 among them, any height and any width."""
    operands = dynamic_operands(*SIZES[0])
    program = export(Dynamic().eval(), operands, dynamic_shapes=DYNAMIC_SHAPES)
    for size in SIZES:
        operands = dynamic_operands(*size)
        check_dynamic(run(program, *operands), operands)


@pytest.mark.quick
def test_exported_program():
    """What torch.export has traced before holds our ops, until they are decomposed."""
    operands = dynamic_operands(*SIZES[0])
    program = torch.export.export(Dynamic(), operands, dynamic_shapes=DYNAMIC_SHAPES)
    with pytest.raises(Exception, match=r"No ONNX function found for .*stn_cuda\."):
        export(program, ())

    plain = program.run_decompositions(stn_cuda.onnx.decomposition_table())
    assert not any("stn_cuda" in str(node.target) for node in plain.graph.nodes)
    exported = export(plain, ())
    for size in SIZES:
        operands = dynamic_operands(*size)
        check_dynamic(plain.module()(*operands), operands)
        check_dynamic(run(exported, *operands), operands)


@pytest.mark.quick
def test_spatial_transformer(tmp_path):
    """The module, as a user exports it: nothing but dynamo=True."""
    localization = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 6 * 7, 6))
    module = stn_cuda.nn.SpatialTransformer(localization, size=(5, 4)).eval()
    localization[1].bias.data = thetas(1, 2).flatten()
    x = image((3, 2, 6, 7))
    program = torch.onnx.export(module, (x,), tmp_path / "stn.onnx", dynamo=True, verbose=False)
    assert len(samplers(program)) == 1
    session = onnxruntime.InferenceSession(tmp_path / "stn.onnx")
    (output,) = session.run(None, {"input": x.numpy()})
    call = Call(x, thetas(1, 2), "affine", (5, 4))
    with Checks() as checks:
        expected = call.expect()
        checks.close(torch.from_numpy(output), expected, forward_bound(call, expected), "output")


@pytest.mark.quick
def test_wrong_calls_are_refused():
    """In the words of the eager call."""
    volume = Calls([Call(image((1, 1, 3, 3, 3)), scattered_grid(1, (2, 2, 2)), mode="bicubic")])
    operands = [(call.input, call.warp) for call in volume.calls]
    with pytest.raises(Exception, match=BICUBIC_VOLUME):
        export(volume.eval(), (operands,))


@pytest.mark.quick
def test_the_older_exporter_refuses():
    """dynamo=False knows nothing of our ops, and names the one it met."""
    call = Call(image((1, 1, 3, 3)), scattered_grid(1, (2, 2)))
    with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match="stn_cuda::sample"):
        torch.onnx.export(
            Calls([call]).eval(), ([(call.input, call.warp)],), io.BytesIO(), dynamo=False
        )


@pytest.mark.quick
def test_decompositions():
    """The functions check as the kernels do, and return the same dtype and memory format."""
    table = stn_cuda.onnx.decomposition_table()
    sample, warp_grid = (table[op.default] for op in (OPS.sample, OPS.warp_grid))
    with pytest.raises(RuntimeError, match=BICUBIC_VOLUME):
        volume = image((1, 1, 3, 3, 3))
        sample(volume, thetas(1, 3), "affine", (2, 2, 2), "bicubic", "zeros", True)
    with pytest.raises(ValueError, match="size must be"):
        warp_grid(thetas(1, 2), "affine", (3,), False)

    x = image((2, 3, 4, 5), torch.float16)
    for layout in (x, x.contiguous(memory_format=channels_last(x))):
        arguments = layout, thetas(2, 2), "affine", (4, 6), "bilinear", "zeros", False
        output, expected = sample(*arguments), OPS.sample(*arguments)
        assert output.dtype == expected.dtype and output.stride() == expected.stride()
    arguments = thetas(2, 2, torch.bfloat16), "affine", (4, 6), False
    assert warp_grid(*arguments).dtype == OPS.warp_grid(*arguments).dtype


@pytest.mark.quick
def test_import_needs_no_onnx():
    code = "import stn_cuda, sys; print(*(name for name in sys.modules if name.startswith('onnx')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
