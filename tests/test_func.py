"""Forward-mode derivatives and torch.func: what the same expression of torch's would give."""

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from accuracy import Checks
from cases import ALL_CONFIGURATIONS, Call, configuration_id, image, scattered_grid, thetas
from second import like
from test_gradients import away_from_kinks
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import stn_cuda
from stn_cuda.reference import affine_grid
from stn_cuda.reference import sample as oracle

F64 = torch.float64


def calls(dims=2, batch=2, kinds=("grid", "affine"), **settings):
    shape, size = ((batch, 2, 4, 5), (3, 6)) if dims == 2 else ((batch, 2, 3, 4, 3), (2, 3, 4))
    for kind in kinds:
        warp = scattered_grid(batch, size, F64) if kind == "grid" else thetas(batch, dims, F64)
        yield Call(image(shape, F64), warp, kind, size, **settings)


def sampled(call):
    return lambda x, w: call.run(x, w)


def expected(call):
    """The reference as a function of (input, warp), by the same settings."""

    def run(x, w):
        size = call.output_size
        grid = w if call.map == "grid" else affine_grid(w, size, call.align_corners)
        return oracle(x, grid, **call.keywords)

    return run


def loss_of(function):
    return lambda *arguments: function(*arguments).square().sum()


def by_double_vjp(function, primals, tangents):
    """A jvp without forward mode: the derivative of a vjp, which is linear in its cotangent."""
    leaves = [p.detach().clone().requires_grad_() for p in primals]
    out = function(*leaves)
    v = torch.zeros_like(out, requires_grad=True)
    grads = torch.autograd.grad(
        out, leaves, v, create_graph=True, allow_unused=True, materialize_grads=True
    )
    total = sum((g * t).sum() for g, t in zip(grads, tangents, strict=True))
    return torch.autograd.grad(total, v, allow_unused=True, materialize_grads=True)[0]


def smooth(call):
    """The call, its settings' kinks taken out of every result."""
    keep = away_from_kinks(call)
    return keep, lambda x, w: call.run(x, w) * keep.to(call.input.device)


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_jvp(configuration, device):
    """Along a direction of the input, of the warp, and of both."""
    dims, mode, padding, align = configuration
    with Checks() as checks:
        for call in calls(dims, mode=mode, padding_mode=padding, align_corners=align):
            keep, run = smooth(call.on(device))
            x, w = call.input.to(device), call.warp.to(device)
            dx, dw = like(call.input, "dx").to(device), like(call.warp, "dw").to(device)
            for tangents in ((dx, 0 * dw), (0 * dx, dw), (dx, dw)):
                value, moved = jvp(run, (x, w), tangents)
                checks.close(value, call.expect() * keep, 1e-12, f"value of {call}")
                on_cpu = [t.cpu() for t in tangents]
                wanted = by_double_vjp(expected(call), (call.input, call.warp), on_cpu) * keep
                checks.close(moved, wanted, 1e-11 * (1 + wanted.abs().max()), f"jvp of {call}")


@pytest.mark.quick
def test_forward_mode_of_every_first_derivative(device):
    """gradcheck's own forward-mode checks, over backward functions too."""
    for call in calls(batch=1):
        keep, run = smooth(call.on(device))
        inputs = [t.to(device).requires_grad_() for t in (call.input, call.warp)]
        assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True)


@pytest.mark.quick
def test_jvp_takes_one_pass():
    """Value and derivative along a warp's tangent come from one kernel."""
    for call in calls():
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile, fwAD.dual_level():
            call.run(call.input, fwAD.make_dual(call.warp, like(call.warp, "dw")))
        names = [e.name for e in profile.events() if e.name.startswith("stn_cuda::")]
        # The call itself, and what it has become.
        assert sorted(set(names)) == ["stn_cuda::sample", "stn_cuda::sample_with_derivative"]
        assert names.count("stn_cuda::sample") == 1


@pytest.mark.quick
@pytest.mark.parametrize("outer", (jacfwd, jacrev))
@pytest.mark.parametrize("argnum", (0, 1))
def test_jacobians_and_hessians(outer, argnum):
    with Checks() as checks:
        for call in calls(batch=1, mode="bicubic"):
            arguments = (call.input, call.warp)
            ours = outer(sampled(call), argnum)(*arguments)
            wanted = torch.autograd.functional.jacobian(expected(call), arguments)[argnum]
            checks.close(ours, wanted, 1e-10, f"{outer.__name__} by {argnum} of {call}")

            ours = outer(jacrev(loss_of(sampled(call)), argnum), argnum)(*arguments)
            wanted = torch.autograd.functional.hessian(loss_of(expected(call)), arguments)
            wanted = wanted[argnum][argnum]
            checks.close(ours, wanted, 1e-8, f"Hessian by {argnum} of {call}")


@pytest.mark.quick
def test_hessian_and_vjp():
    call = next(calls(batch=1, kinds=("affine",)))
    ours = hessian(lambda w: call.run(call.input, w).square().sum())(call.warp)
    wanted = torch.autograd.functional.hessian(
        lambda w: expected(call)(call.input, w).square().sum(), call.warp
    )
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    output, pull = vjp(sampled(call), call.input, call.warp)
    _, *grads = call.expect_gradients(output)
    for ours, wanted in zip(pull(output), grads, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.quick
def test_forward_mode_in_forward_mode_is_refused():
    call = next(calls(batch=1))
    with pytest.raises(NotImplementedError, match="second ones of forward-mode in forward-mode"):
        jacfwd(jacfwd(lambda w: call.run(call.input, w).sum()))(call.warp)


def stacked(tensors, dim):
    return torch.stack(tensors, dim)


@pytest.mark.quick
@pytest.mark.parametrize("batches", ((1, 1), (2, 2), (1, 2), (2, 1)))
@pytest.mark.parametrize("dims", ((0, 0), (0, None), (None, 0), (1, 2)))
def test_vmap(batches, dims):
    """Over the input, the warp and both, along any dimension; values and gradients."""
    images, warps = batches
    with Checks() as checks:
        for call in calls():
            xs = [image((images, *call.input.shape[1:]), F64, key=k) for k in range(3)]
            ws = [like(call.warp[:warps], k) * 0.3 + call.warp[:warps] for k in range(3)]
            x = xs[0] if dims[0] is None else stacked(xs, dims[0])
            w = ws[0] if dims[1] is None else stacked(ws, dims[1])
            xs = xs[:1] * 3 if dims[0] is None else xs
            ws = ws[:1] * 3 if dims[1] is None else ws
            run = sampled(call)
            ours = vmap(run, in_dims=dims)(x, w)
            wanted = torch.stack([run(a, b) for a, b in zip(xs, ws, strict=True)])
            checks.same(ours, wanted, f"vmap {dims} of {batches}, {call}")

            loss = loss_of(run)
            for argnum in (0, 1):
                ours = vmap(grad(loss, argnum), in_dims=dims)(x, w)
                wanted = [grad(loss, argnum)(a, b) for a, b in zip(xs, ws, strict=True)]
                what = f"gradient by {argnum}, vmap {dims} of {batches}, {call}"
                checks.close(ours, torch.stack(wanted), 1e-12, what)


@pytest.mark.quick
def test_vmap_of_thetas_copies_no_image():
    """One image, many thetas: the kernel reads the image where it is."""
    x, theta = image((1, 3, 200, 210)), thetas(7, 2).unsqueeze(1)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        y = vmap(lambda t: stn_cuda.sample(x, stn_cuda.Affine(t), (20, 21)))(theta)
    assert y.shape == (7, 1, 3, 20, 21)
    largest = max(e.cpu_memory_usage for e in profile.key_averages())
    assert largest < x.numel() * x.element_size(), f"{largest} bytes for the output of {y.numel()}"


@pytest.mark.quick
def test_vmap_nested_and_out_dims():
    call = next(calls(kinds=("affine",)))
    xs = torch.stack([image((1, 2, 4, 5), F64, key=k) for k in range(2)])
    ws = torch.stack([thetas(1, 2, F64, key=k) for k in range(3)])
    run = sampled(call)
    ours = vmap(vmap(run, (None, 0), out_dims=2), (0, None))(xs, ws)
    wanted = torch.stack([torch.stack([run(x, w) for w in ws], 2) for x in xs])
    assert torch.equal(ours, wanted)


@pytest.mark.quick
def test_per_sample_gradients():
    """The recipe of torch.func: vmap(grad(loss)) over a network with a transformer in it."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = torch.nn.Parameter(thetas(1, 2, F64)[0])

        def forward(self, x):
            warp = stn_cuda.Affine(self.theta.expand(x.shape[0], 2, 3))
            return stn_cuda.sample(x, warp, padding_mode="border").square().mean()

    net = Net()
    x = image((4, 2, 6, 7), F64)

    def loss(parameters, one):
        return functional_call(net, parameters, (one.unsqueeze(0),))

    parameters = {name: p.detach() for name, p in net.named_parameters()}
    ours = vmap(grad(loss), in_dims=(None, 0))(parameters, x)["theta"]
    wanted = [grad(loss)(parameters, one)["theta"] for one in x]
    torch.testing.assert_close(ours, torch.stack(wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.quick
def test_vmap_of_the_other_functions():
    call = next(calls(kinds=("affine",)))
    xs = torch.stack([image((2, 2, 4, 5), F64, key=k) for k in range(3)])
    ws = torch.stack([thetas(2, 2, F64, key=k) for k in range(3)])

    def splat(v, w):
        return stn_cuda.splat(v, stn_cuda.Affine(w), (5, 6))

    def gradient(x, w):
        return stn_cuda.sample_with_gradient(x, stn_cuda.Affine(w), call.output_size)[1]

    def written(x, w):
        return stn_cuda.Affine(w).grid((3, 4)) + x.sum()

    for function in (splat, gradient, written):
        ours = vmap(function)(xs, ws)
        wanted = torch.stack([function(x, w) for x, w in zip(xs, ws, strict=True)])
        assert torch.equal(ours, wanted), function.__name__

        loss = loss_of(function)
        ours = vmap(grad(loss, 1))(xs, ws)
        wanted = torch.stack([grad(loss, 1)(x, w) for x, w in zip(xs, ws, strict=True)])
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.quick
def test_batches_that_do_not_fit_are_refused():
    call = next(calls())
    with pytest.raises(RuntimeError, match="same batch size"):
        vmap(sampled(call))(torch.rand(2, 3, 2, 4, 5), torch.rand(2, 2, 3, 6, 2))
