"""Checks in two processes: DTensors, which stay sharded as they are."""

import copy

import torch
import torch.distributed as dist
from distributed_models import IMAGES, TARGETS, Net, check, close, randn, trained
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.debug import CommDebugMode

import stn_cuda

R, P, N, C, Y = Replicate(), Partial("sum"), Shard(0), Shard(1), Shard(2)

# input's batch and placement, warp's, and the placements of: output, input's gradient, warp's.
AFFINE = {
    "batch": (4, N, 4, N, N, N, N),
    "uneven batch": (5, N, 5, N, N, N, N),
    "an image each": (2, N, 2, N, N, N, N),
    "replicated warps": (4, N, 4, R, N, N, N),
    "one warp": (4, N, 1, R, N, N, P),
    "one image": (1, R, 4, N, N, P, N),
    "channels": (3, C, 3, R, C, C, P),
    "channels, one warp": (3, C, 1, R, C, C, P),
    "replicated": (3, R, 3, R, R, R, R),
}
GRID = {**AFFINE, "rows of the output": (2, R, 2, C, Y, P, C), "one grid's": (2, R, 1, C, Y, P, C)}


def call(map, x, warp):
    if map == "affine":
        return stn_cuda.sample(x, stn_cuda.Affine(warp), (4, 6, 3)[: x.dim() - 2])
    if map == "flow":
        warp = stn_cuda.Flow(warp.movedim(-1, 1))
    return stn_cuda.sample(x, warp, padding_mode="border")


def make_warp(map, batch, dims=2):
    if map == "affine":
        return torch.eye(dims, dims + 1, dtype=torch.float64) + 0.1 * randn(batch, dims, dims + 1)
    return 0.8 * randn(batch, *(4, 6, 3)[:dims], dims)


def check_case(mesh, map, case, dims=2, channels=3, channels_last=False):
    images, x_placed, warps, warp_placed, *expected = case
    x, warp = randn(images, channels, *(7, 5, 4)[:dims]), make_warp(map, warps, dims)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_(), warp.requires_grad_()
    y = call(map, x, warp)
    cotangent = torch.ones_like(y) + randn(*y.shape)
    grads = torch.autograd.grad(y, (x, warp), cotangent)
    there = [
        distribute_tensor(tensor.detach(), mesh, [*[R] * (mesh.ndim - 1), placed]).requires_grad_()
        for tensor, placed in ((x, x_placed), (warp, warp_placed))
    ]
    cotangent = distribute_tensor(cotangent, mesh, [*[R] * (mesh.ndim - 1), expected[0]])
    with CommDebugMode() as communication:
        sharded = call(map, *there)
        results = (sharded, *torch.autograd.grad(sharded, there, cotangent))
    assert communication.get_total_counts() == 0, communication.get_comm_counts()
    for result, reference, placed in zip(results, (y, *grads), expected, strict=True):
        assert result.placements[-1] == placed, (result.placements, placed)
        assert (result.shape, result.stride()) == (reference.shape, reference.stride())
        part = distribute_tensor(
            reference.detach(), mesh, [R if p == P else p for p in result.placements]
        )
        assert result.to_local().shape == part.to_local().shape
        close(result.full_tensor(), reference.detach())


def check_cases(mesh, map, cases, **options):
    for name, case in cases.items():
        try:
            check_case(mesh, map, case, **options)
        except Exception as error:
            raise AssertionError(f"{map}, {name}") from error


@check("tensors")
def affine_stays_sharded():
    check_cases(init_device_mesh("cpu", (2,)), "affine", AFFINE)


@check("tensors")
def grid_stays_sharded():
    check_cases(init_device_mesh("cpu", (2,)), "grid", GRID)


@check("tensors")
def flow_stays_sharded():
    check_cases(init_device_mesh("cpu", (2,)), "flow", AFFINE)


@check("tensors")
def rows_of_a_flow_are_gathered():
    """Its points take their places in the whole output."""
    mesh = init_device_mesh("cpu", (2,))
    x, warp = randn(2, 3, 7, 5), make_warp("flow", 2)
    there = [distribute_tensor(t, mesh, [p]) for t, p in ((x, R), (warp, C))]
    y = call("flow", *there)
    assert y.placements in ((R,), (N,))  # not along the points
    close(y.full_tensor(), call("flow", x, warp))


@check("tensors")
def volumes_stay_sharded():
    mesh = init_device_mesh("cpu", (2,))
    for map, cases in (("affine", AFFINE), ("grid", GRID)):
        names = ("uneven batch", "one warp", "channels", "rows of the output")
        check_cases(mesh, map, {n: case for n, case in cases.items() if n in names}, dims=3)


@check("tensors")
def masks_stay_sharded():
    """As the warps are; they do not depend on the channels, nor on the images."""
    mesh = init_device_mesh("cpu", (2,))
    for images, x_placed, warps, warp_placed, mask_placed in (
        (4, N, 4, N, N),
        (4, N, 1, R, R),
        (3, C, 3, R, R),
    ):
        x, theta = randn(images, 3, 7, 5), make_warp("affine", warps)

        def run(x, theta):
            return stn_cuda.sample(x, stn_cuda.Affine(theta), (4, 6), return_mask=True)

        there = [distribute_tensor(t, mesh, [p]) for t, p in ((x, x_placed), (theta, warp_placed))]
        y, mask = run(*there)
        assert y.placements == (x_placed,) and mask.placements == (mask_placed,)
        for result, reference in zip((y, mask), run(x, theta), strict=True):
            close(result.full_tensor(), reference)


@check("tensors")
def a_process_without_channels():
    mesh = init_device_mesh("cpu", (2,))
    for map in ("affine", "grid"):
        check_case(mesh, map, AFFINE["channels"], channels=1)


@check("tensors")
def a_mesh_of_two_dimensions():
    mesh = init_device_mesh("cpu", (1, 2))
    check_cases(mesh, "affine", AFFINE)


@check("tensors")
def channels_last_stays():
    check_cases(init_device_mesh("cpu", (2,)), "affine", AFFINE, channels_last=True)


@check("tensors")
def a_partial_sum_stays_one():
    mesh = init_device_mesh("cpu", (2,))
    x, warp = randn(3, 2, 6, 5), make_warp("affine", 3)
    mine = DTensor.from_local(x * (0.25 if dist.get_rank() else 0.75), mesh, [P])
    there = distribute_tensor(warp, mesh, [R])
    with CommDebugMode() as communication:
        y = call("affine", mine, there)
    assert communication.get_total_counts() == 0
    assert y.placements == (P,)
    close(y.full_tensor(), call("affine", x, warp))


@check("tensors")
def what_cannot_stay_is_redistributed():
    mesh = init_device_mesh("cpu", (2,))
    for map in ("affine", "grid"):
        x, warp = randn(4, 2, 6, 5), make_warp(map, 4)
        expected = call(map, x, warp)
        for x_placed in (R, P, N, C, Y, Shard(3)):
            for warp_placed in (R, P, N, C, Y):
                there = [
                    DTensor.from_local(tensor / 2, mesh, [P])
                    if placed == P
                    else distribute_tensor(tensor, mesh, [placed])
                    for tensor, placed in ((x, x_placed), (warp, warp_placed))
                ]
                y = call(map, *there)
                assert y.shape == expected.shape
                close(y.full_tensor(), expected)


@check("tensors")
def maps_written_out():
    mesh = init_device_mesh("cpu", (2,))
    for batch, placed in ((3, N), (3, R)):
        theta = make_warp("affine", batch).requires_grad_()
        grid = stn_cuda.Affine(theta).grid((4, 6))
        cotangent = randn(*grid.shape)
        (grad,) = torch.autograd.grad(grid, theta, cotangent)
        there = distribute_tensor(theta.detach(), mesh, [placed]).requires_grad_()
        cotangent = distribute_tensor(cotangent, mesh, [placed])
        with CommDebugMode() as communication:
            written = stn_cuda.affine_grid(there, (3, 1, 4, 6), align_corners=False)
            (written_grad,) = torch.autograd.grad(written, there, cotangent)
        assert communication.get_total_counts() == 0
        assert written.placements == written_grad.placements == (placed,)
        close(written.full_tensor(), grid.detach())
        close(written_grad.full_tensor(), grad)


@check("tensors")
def second_derivatives_through_the_image():
    mesh = init_device_mesh("cpu", (2,))
    x, warp = randn(4, 2, 6, 5), make_warp("grid", 4)

    def second(x, warp, cotangent):
        x, cotangent = x.requires_grad_(), cotangent.requires_grad_()
        (first,) = torch.autograd.grad(call("grid", x, warp), x, cotangent, create_graph=True)
        return torch.autograd.grad(first, cotangent, first.detach())[0]

    expected = second(x, warp, randn(4, 2, 4, 6))
    there = [distribute_tensor(t, mesh, [N]) for t in (x.detach(), warp, randn(4, 2, 4, 6))]
    with CommDebugMode() as communication:
        result = second(*there)
    assert communication.get_total_counts() == 0
    assert result.placements == (N,)
    close(result.full_tensor(), expected)


# Placements of input and warp, for derivatives that need no exchange.
ALONE = {"batch": (N, N), "replicated": (R, R)}


def second_derivatives(map, x, warp, cotangent, direction):
    """What a penalty on the warp's gradient sends back to all that it depends on."""
    leaves = [tensor.detach().requires_grad_() for tensor in (x, warp, cotangent)]
    y = call(map, *leaves[:2])
    first = torch.autograd.grad(y, leaves[:2], leaves[2], create_graph=True)
    return torch.autograd.grad(first, leaves, [t.detach() for t in direction])


def check_second_derivatives(mesh, map, placed, dims):
    x, warp = randn(4, 2, *(7, 5, 4)[:dims]), make_warp(map, 4, dims)
    cotangent = randn(*call(map, x, warp).shape)
    direction = [randn(*x.shape), randn(*warp.shape)]
    expected = second_derivatives(map, x, warp, cotangent, direction)
    image, of_warp = placed
    there = [
        distribute_tensor(tensor, mesh, [placement])
        for tensor, placement in (
            (x, image), (warp, of_warp), (cotangent, image), (direction[0], image),
            (direction[1], of_warp),
        )
    ]  # fmt: skip
    with CommDebugMode() as communication:
        results = second_derivatives(map, *there[:3], there[3:])
    for result, reference in zip(results, expected, strict=True):
        close(result.full_tensor(), reference)
    return communication.get_total_counts(), [result.placements for result in results]


@check("tensors")
def second_derivatives_stay_sharded():
    mesh = init_device_mesh("cpu", (2,))
    for map in ("affine", "grid"):
        for dims in (2, 3):
            for image, of_warp in ALONE.values():
                moved, placed = check_second_derivatives(mesh, map, (image, of_warp), dims)
                assert moved == 0, (map, dims, image)
                assert placed == [(image,), (of_warp,), (image,)], (map, dims, placed)


@check("tensors")
def second_derivatives_of_channels():
    mesh = init_device_mesh("cpu", (2,))
    for map in ("affine", "grid"):
        _, placed = check_second_derivatives(mesh, map, (C, R), 2)
        assert placed[0] == placed[2] == (C,), placed


@check("tensors")
def values_with_gradients():
    mesh = init_device_mesh("cpu", (2,))
    for map in ("affine", "grid"):
        x, warp = randn(4, 2, 6, 5), make_warp(map, 4)
        size = {"size": (4, 6)} if map == "affine" else {}

        def both(x, warp, map=map, size=size):
            return stn_cuda.sample_with_gradient(
                x, stn_cuda.Affine(warp) if map == "affine" else warp, **size
            )

        x.requires_grad_(), warp.requires_grad_()
        value, slope = both(x, warp)
        cotangents = [randn(*value.shape), randn(*slope.shape)]
        grads = torch.autograd.grad((value, slope), (x, warp), cotangents)
        for image, of_warp, grad_placed in ((N, N, [N, N]), (R, R, [R, R]), (C, R, [C, P])):
            there = [
                distribute_tensor(t.detach(), mesh, [placed]).requires_grad_()
                for t, placed in ((x, image), (warp, of_warp))
            ]
            cotangents_there = [distribute_tensor(t, mesh, [image]) for t in cotangents]
            with CommDebugMode() as communication:
                results = both(*there)
                back = torch.autograd.grad(results, there, cotangents_there)
            assert communication.get_total_counts() == 0, (map, image)
            assert [t.placements for t in (*results, *back)] == [
                (placed,) for placed in (image, image, *grad_placed)
            ]
            for result, reference in zip((*results, *back), (value, slope, *grads), strict=True):
                close(result.full_tensor(), reference.detach())


@check("tensors")
def compiled():
    mesh = init_device_mesh("cpu", (2,))
    function = torch.compile(call, backend="aot_eager", fullgraph=True)
    x, warp = randn(4, 2, 6, 5).requires_grad_(), make_warp("affine", 1).requires_grad_()
    y = call("affine", x, warp)
    grads = torch.autograd.grad(y, (x, warp), y.detach())
    there = [
        distribute_tensor(t.detach(), mesh, [placed]).requires_grad_()
        for t, placed in ((x, N), (warp, R))
    ]
    sharded = function("affine", *there)
    sharded_grads = torch.autograd.grad(sharded, there, sharded.detach())
    assert [t.placements for t in (sharded, *sharded_grads)] == [(N,), (N,), (P,)]
    for result, expected in zip((sharded, *sharded_grads), (y, *grads), strict=True):
        close(result.full_tensor(), expected.detach())


@check("tensors")
def a_module_on_dtensors():
    mesh = init_device_mesh("cpu", (2,))
    net = Net().double()
    expected = trained(copy.deepcopy(net), IMAGES, TARGETS).state_dict()
    images, targets = (distribute_tensor(t, mesh, [N]) for t in (IMAGES, TARGETS))
    model = distribute_module(net, mesh)  # replicated
    with CommDebugMode() as communication:
        output = model(images)
    assert communication.get_total_counts() == 0
    assert output.placements == (N,)
    # What .grad holds for a replicated weight is a Partial; the optimiser adds it up.
    for name, value in trained(model, images, targets).state_dict().items():
        close(value.full_tensor(), expected[name])


@check("tensors")
def errors():
    mesh = init_device_mesh("cpu", (2,))

    def refusal(x, warp, placed):
        x = distribute_tensor(x, mesh, [placed])
        warp = warp if placed is R else distribute_tensor(warp, mesh, [placed])
        try:
            call("affine", x, warp)
        except RuntimeError as error:
            return str(error)
        raise AssertionError("no error")

    mixed = refusal(randn(4, 2, 6, 5), make_warp("affine", 4), R)
    assert "sample: warp must be a DTensor as the others are, got Tensor" in mixed, mixed
    # Each process would have 2 images and 1 warp, which fit; 4 and 2 do not.
    batches = refusal(randn(4, 2, 6, 5), make_warp("affine", 2), N)
    assert "same batch size, or 1 on either side, got 4 and 2" in batches, batches
