"""torch's own test inputs and error checks for grid_sample and affine_grid, driven through ours.

The OpInfo database holds samples for `nn.functional.grid_sample`, `grid_sampler_2d` and
`grid_sampler_3d`; for affine_grid only a jit test sample exists, so its inputs are the shapes of
torch's own test_affine_grid. The error checks follow torch's test_grid_sample_error_checking and
test_affine_grid_error_checking: the same call must raise the same type with a text on which
torch's pattern matches.
"""

import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from accuracy import Checks, check_call
from cases import Call, thetas, torch_sample
from torch.testing._internal.common_methods_invocations import op_db

import stn_cuda

# The samples of grid_sampler_3d are volumes of up to 5 million voxels.
OPS = {
    "nn.functional.grid_sample": pytest.mark.quick,
    "grid_sampler_2d": pytest.mark.quick,
    "grid_sampler_3d": (),
}
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
DTYPES = (torch.float32, torch.float64)
# From 2.15 on torch takes "bicubic" for volumes, which is refused here (README, "Limits").
ONLY_4D = "bicubic interpolation only supports 4D input"
TORCH_HAS_TRICUBIC = torch.__version__ >= (2, 15)
LOW = (torch.float16, torch.bfloat16)


def op_info(name):
    return next(op for op in op_db if op.name == name and not op.variant_test_name)


def as_call(sample):
    """A sample of grid_sample (names) or grid_sampler_2d/3d (numbers) as a Call."""
    named = dict(zip(("mode", "padding_mode", "align_corners"), sample.args[1:], strict=False))
    named |= sample.kwargs
    if isinstance(named["mode"], int):
        named["mode"] = MODES[named["mode"]]
        named["padding_mode"] = PADDINGS[named["padding_mode"]]
    grid = sample.args[0]
    return Call(sample.input.detach(), grid.detach(), "grid", None, **named)


def run_samples(samples):
    with Checks() as checks:
        for sample in samples:
            call = as_call(sample)
            if call.mode == "bicubic" and call.input.dim() == 5:
                assert TORCH_HAS_TRICUBIC
                with pytest.raises(RuntimeError, match=ONLY_4D):
                    call.run()
                continue
            # The gradients of the volumes of 5 million voxels take most of a minute to bound.
            small = call.input.numel() < 1e6
            check_call(checks, call, torch_sample, gradients=small)
            output = stn_cuda.grid_sample(call.input, call.warp, **call.keywords)
            checks.same(output, call.run(), f"grid_sample, {call}")


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in OPS.items()])
@pytest.mark.parametrize("dtype", (*DTYPES, *LOW), ids=str)
def test_sample_inputs(name, dtype):
    samples = op_info(name).sample_inputs("cpu", dtype, requires_grad=True)
    largest = 1e8 if dtype == torch.float32 else 1e6  # the large volumes once are enough
    run_samples(sample for sample in samples if sample.input.numel() < largest)


@pytest.mark.parametrize("dtype", (*DTYPES, *LOW), ids=str)
def test_reference_inputs(dtype):
    """Images of 345 x 456 turned by 45 degrees. (The other two ops have no reference inputs.)"""
    samples = op_info("nn.functional.grid_sample").reference_inputs("cpu", dtype)
    # One align_corners of each mode and padding, in turn: they are large.
    chosen = [sample for n, sample in enumerate(samples) if n % 2 == n // 2 % 2]
    run_samples(chosen)


def test_opinfo_error_inputs():
    """Whatever error inputs a torch version brings for these ops must be refused by ours too."""
    for name in OPS:
        info = op_info(name)
        if info.error_inputs_func is None:
            continue
        for error in info.error_inputs("cpu"):
            sample = error.sample_input
            with pytest.raises(error.error_type, match=error.error_regex):
                stn_cuda.grid_sample(sample.input, *sample.args, **sample.kwargs)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_affine_grid_sample_inputs(dtype):
    """Shapes as in torch's test_affine_grid and its jit sample, all against torch itself."""
    sizes = [(1, 1, 3, 2), (2, 2, 3, 5), (5, 1, 7, 7), (2, 3, 1, 4)]
    sizes += [(1, 1, 2, 3, 2), (2, 2, 3, 2, 3), (3, 1, 4, 5, 6)]
    for size in sizes:
        for align in (False, True):
            theta = thetas(size[0], len(size) - 2, dtype, spread=2.0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = F.affine_grid(theta.double(), size, align_corners=align)
                actual = stn_cuda.affine_grid(theta, size, align_corners=align)
            bound = 16 * torch.finfo(dtype).eps * theta.abs().sum(-1).max().item()
            torch.testing.assert_close(actual.double(), expected, rtol=0, atol=bound)


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
def test_the_known_input_of_torchs_own_test(align):
    """The 2 x 5 image and the grid of torch's test_grid_sample, in every mode and padding."""
    image = torch.arange(1.0, 11).view(1, 1, 2, 5)
    grid = torch.tensor(
        [
            [[-0.9, -4.1], [0, 0.2], [1, -1], [-0.333, 1e-6], [0.5, 1.0]],
            [[-1.0, -0.5], [0, 0.3333], [1, -1], [-0.2, 1e-6], [1.5, 0.5]],
        ]
    ).unsqueeze(0)
    for mode in MODES:
        for padding in PADDINGS:
            expected = F.grid_sample(image, grid, mode, padding, align)
            actual = stn_cuda.grid_sample(image, grid, mode, padding, align)
            # float32 on both sides, values of 10, coordinates of up to 12 pixels
            torch.testing.assert_close(actual, expected, rtol=0, atol=10 * 12 * 16 * 2.0**-24)


def x4(*shape):
    return torch.rand(shape or (1, 1, 2, 2))


# What is refused, by torch and by us: (call, pattern of torch's own test or of its message).
GRID_SAMPLE_ERRORS = {
    "mode": (
        lambda f: f(x4(), x4(1, 1, 1, 2), mode="garbage", align_corners=False),
        "but got: 'garbage'",
    ),
    "mode's list": (
        lambda f: f(x4(), x4(1, 1, 1, 2), mode="linear", align_corners=False),
        "expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: 'linear'",
    ),
    "mode None": (lambda f: f(x4(), x4(1, 1, 1, 2), None, align_corners=False), "but got: 'None'"),
    "mode 0": (lambda f: f(x4(), x4(1, 1, 1, 2), 0, align_corners=False), "but got: '0'"),
    "padding": (
        lambda f: f(x4(), x4(1, 1, 1, 2), padding_mode="garbage", align_corners=False),
        "but got: 'garbage'",
    ),
    "padding's list": (
        lambda f: f(x4(), x4(1, 1, 1, 2), "nearest", "mirror", align_corners=False),
        "expected padding_mode to be 'zeros', 'border', or 'reflection', but got: 'mirror'",
    ),
    "grid 5-D": (
        lambda f: f(x4(), x4(1, 1, 1, 1, 3), align_corners=False),
        "expected grid to have size 2 in last dimension",
    ),
    "last dimension 3": (
        lambda f: f(x4(), x4(1, 1, 1, 3), align_corners=False),
        "expected grid to have size 2 in last dimension",
    ),
    "last dimension 2 of a volume": (
        lambda f: f(x4(1, 1, 2, 2, 2), x4(1, 1, 1, 1, 2), align_corners=False),
        "expected grid to have size 3 in last dimension",
    ),
    "batch": (
        lambda f: f(x4(2, 1, 2, 2), x4(3, 1, 1, 2), align_corners=False),
        "expected grid and input to have same batch size",
    ),
    "grid 3-D": (
        lambda f: f(x4(), x4(1, 1, 2), align_corners=False),
        "expected 4D.* input and grid with same number of dimensions",
    ),
    "grid 4-D of a volume": (
        lambda f: f(x4(1, 1, 2, 2, 2), x4(1, 1, 1, 3), align_corners=False),
        "expected .*5D input and grid with same number of dimensions",
    ),
    "input 3-D": (
        lambda f: f(x4(1, 2, 2), x4(1, 1, 1, 2), align_corners=False),
        "expected grid to have size 1 in last dimension",
    ),
    "input 2-D": (
        lambda f: f(x4(1, 2), x4(1, 0), align_corners=False),
        "input and grid with same number of dimensions",
    ),
    "input 6-D": (
        lambda f: f(x4(1, 1, 2, 2, 2, 2), x4(1, 1, 1, 1, 1, 4), align_corners=False),
        "input and grid with same number of dimensions",
    ),
    "empty image": (
        lambda f: f(x4(1, 1, 0, 2), x4(1, 1, 1, 2), align_corners=False),
        "expected input to have non-empty spatial dimensions",
    ),
    "bicubic volume": (
        lambda f: f(x4(1, 1, 2, 2, 2), x4(1, 1, 1, 1, 3), mode="bicubic", align_corners=False),
        ONLY_4D,
    ),
    "integers": (
        lambda f: f(x4().int(), x4(1, 1, 1, 2).int(), align_corners=False),
        "not implemented for 'Int'",
    ),
    "bytes": (
        lambda f: f(x4().byte(), x4(1, 1, 1, 2).byte(), align_corners=False),
        "not implemented for 'Byte'",
    ),
    "complex": (
        lambda f: f(x4().cfloat(), x4(1, 1, 1, 2).cfloat(), align_corners=False),
        "not implemented for 'ComplexFloat'",
    ),
    "integer grid": (lambda f: f(x4(), x4(1, 1, 1, 2).int(), align_corners=False), "(?i)int"),
    "None": (
        lambda f: f(None, x4(1, 1, 1, 2), align_corners=False),
        "must be (a )?Tensor.*NoneType",
    ),
    "list": (lambda f: f(x4(), [[1.0]], align_corners=False), "must be (a )?Tensor.*list"),
    "ndarray": (
        lambda f: f(x4().numpy(), x4(1, 1, 1, 2), align_corners=False),
        "must be (a )?Tensor.*ndarray",
    ),
}

# Refused by torch, documented as supported here: (call, reason).
SUPPORTED_HERE = {
    "batch of 1": (
        lambda f: f(x4(1, 1, 2, 2), x4(2, 1, 1, 2), align_corners=False),
        "expected grid and input to have same batch size",
        "a batch of 1 on either side is broadcast",
    ),
    "mixed dtypes": (
        lambda f: f(x4().half(), x4(1, 1, 1, 2), align_corners=False),
        "expected scalar type",
        "the grid's dtype is independent of the input's",
    ),
}

THETA = torch.eye(2, 3).unsqueeze(0)
THETA3 = torch.eye(3, 4).unsqueeze(0)
NX23 = "Expected a batch of 2D affine matrices of shape Nx2x3"
NX34 = "Expected a batch of 3D affine matrices of shape Nx3x4"
ONLY = "affine_grid only supports 4D and 5D sizes"
POSITIVE = "Expected non-zero, positive output size"

AFFINE_GRID_ERRORS = {
    "integer theta": (THETA.int(), (1, 1, 2, 2), "Expected theta to have floating point type"),
    "theta without batch": (THETA[0], (1, 1, 2, 2), NX23),
    "theta 4-D": (THETA.unsqueeze(0), (1, 1, 2, 2), NX23),
    "theta (1, 4, 3)": (THETA.repeat(1, 2, 1), (1, 1, 2, 2), NX23),
    "theta (1, 2, 6)": (THETA.repeat(1, 1, 2), (1, 1, 2, 2), NX23),
    "theta of a volume": (THETA3, (1, 1, 2, 2), NX23),
    "theta without batch, volume": (THETA3[0], (1, 1, 2, 2, 2), NX34),
    "theta 4-D, volume": (THETA3.unsqueeze(0), (1, 1, 2, 2, 2), NX34),
    "theta (1, 6, 4)": (THETA3.repeat(1, 2, 1), (1, 1, 2, 2, 2), NX34),
    "theta of an image": (THETA, (1, 1, 2, 2, 2), NX34),
    "size of 2": (THETA, (2, 2), ONLY),
    "size of 3": (THETA, torch.Size([1, 2, 2]), ONLY),
    "size of 6": (THETA, (1, 1, 1, 1, 1, 1), ONLY),
    "zero": (THETA, (1, 1, 2, 0), POSITIVE),
    "empty batch": (THETA[:0], (0, 1, 2, 2), POSITIVE),
    "negative": (THETA, (1, 1, -2, 2), POSITIVE),
    "negative, volume": (THETA3, torch.Size([1, 1, 2, 2, -1]), POSITIVE),
}


def assert_as_torch(call, torch_function, our_function, pattern):
    """Both raise; ours an error that an `except` of torch's type catches; both texts match."""
    if pattern == ONLY_4D and TORCH_HAS_TRICUBIC:
        torch_function = our_function
    with pytest.raises(Exception, match=pattern) as theirs:
        call(torch_function)
    with pytest.raises(Exception, match=pattern) as ours:
        call(our_function)
    # torch's NotImplementedError for dtypes is a RuntimeError; ours may be the latter.
    accepted = RuntimeError if theirs.type is NotImplementedError else theirs.type
    accepted = theirs.type if pattern == ONLY else accepted
    assert issubclass(ours.type, accepted), f"{ours.type.__name__} instead of {accepted.__name__}"


@pytest.mark.quick
@pytest.mark.parametrize("name", GRID_SAMPLE_ERRORS)
def test_grid_sample_errors(name):
    call, pattern = GRID_SAMPLE_ERRORS[name]
    assert_as_torch(call, F.grid_sample, stn_cuda.grid_sample, pattern)


@pytest.mark.quick
@pytest.mark.parametrize("name", SUPPORTED_HERE)
def test_supported_beyond_torch(name):
    call, pattern, reason = SUPPORTED_HERE[name]
    with pytest.raises(RuntimeError, match=pattern):
        call(F.grid_sample)
    assert call(stn_cuda.grid_sample).isfinite().all(), reason


@pytest.mark.quick
@pytest.mark.parametrize("name", AFFINE_GRID_ERRORS)
def test_affine_grid_errors(name):
    theta, size, pattern = AFFINE_GRID_ERRORS[name]
    assert_as_torch(
        lambda f: f(theta, size, align_corners=False), F.affine_grid, stn_cuda.affine_grid, pattern
    )


@pytest.mark.quick
def test_affine_grid_messages_are_torchs():
    """Not only the pattern: the whole text, except for the object that it ends with."""
    for theta, size, _ in AFFINE_GRID_ERRORS.values():
        texts = []
        for function in (F.affine_grid, stn_cuda.affine_grid):
            with pytest.raises(Exception) as error:  # noqa: PT011
                function(theta, size, align_corners=False)
            texts.append(re.sub(r"\s+", " ", str(error.value)))
        assert texts[0] == texts[1]


@pytest.mark.quick
def test_affine_grid_batch_mismatch():
    with pytest.raises(RuntimeError, match="batch|Expected size"):
        stn_cuda.affine_grid(THETA.repeat(2, 1, 1), (3, 1, 2, 2), align_corners=False)


@pytest.mark.quick
def test_affine_grid_single_points_warn_as_torch():
    """align_corners=True with an axis of one point warns; False does not."""
    for function in (F.affine_grid, stn_cuda.affine_grid):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(THETA, (1, 1, 2, 1), align_corners=False)
            function(THETA, (1, 1, 2, 2), align_corners=True)
            function(THETA3, (1, 1, 2, 1, 2), align_corners=False)
        with pytest.warns(UserWarning, match="See the documentation of affine_grid for details"):
            function(THETA, torch.Size([1, 1, 2, 1]), align_corners=True)
        with pytest.warns(UserWarning, match="See the documentation of affine_grid for details"):
            function(THETA3, (1, 1, 1, 2, 2), align_corners=True)
