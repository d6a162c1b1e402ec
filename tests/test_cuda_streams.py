"""CUDA streams, graphs, several devices; and that no call waits for the device."""

import pytest
import torch
from accuracy import Checks
from cases import NAN, image, scattered_grid, thetas
from conftest import cuda_problem

import stn_cuda

if cuda_problem():
    pytest.skip(cuda_problem(), allow_module_level=True)

pytestmark = pytest.mark.cuda


def training_step(x, theta, grid):
    """Every kernel once: (outputs and gradients)."""
    warped = stn_cuda.sample(x, stn_cuda.Affine(theta), (20, 30))
    output = stn_cuda.sample(warped, grid, mode="bicubic", padding_mode="border")
    normalised = stn_cuda.Affine(theta).grid((9, 11))
    loss = (output**2).sum() + (normalised**3).sum()
    return output.detach(), *torch.autograd.grad(loss, (x, theta, grid))


def training_arguments():
    tensors = image((4, 8, 32, 31)), thetas(4, 2), scattered_grid(4, (25, 26), reach=0.9)
    return [t.cuda().requires_grad_() for t in tensors]


def test_other_stream(deterministic_algorithms):
    """The kernels run on the current stream: behind what fills their input there."""
    deterministic_algorithms(True)
    arguments = training_arguments()
    expected = training_step(*arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = [torch.full_like(t, NAN) for t in arguments]
        torch.cuda._sleep(50_000_000)
        with torch.no_grad():
            for to, value in zip(late, arguments, strict=True):
                to.copy_(value)
        actual = training_step(*(t.requires_grad_() for t in late))
    stream.synchronize()
    with Checks() as checks:
        for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
            checks.same(a, b, f"result {number}")


@pytest.mark.parametrize("repeatable", [False, True])
def test_graph(repeatable, deterministic_algorithms):
    """Capture, which refuses host synchronisation, and replay on other values."""
    deterministic_algorithms(repeatable)
    arguments = training_arguments()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        training_step(*arguments)  # warm-up, off the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = training_step(*arguments)
    with torch.no_grad():
        for t in arguments:
            t.mul_(0.9)
    graph.replay()
    torch.cuda.synchronize()
    expected = training_step(*arguments)
    torch.testing.assert_close(captured, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_synchronisation():
    arguments = training_arguments()
    training_step(*arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training_step(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_mixed_precision_step():
    """torch.amp: a half image, theta out of a half layer, scaled gradients."""
    torch.manual_seed(0)
    images = image((4, 8, 16, 16)).cuda()
    localization = torch.nn.Linear(8 * 16 * 16, 6, device="cuda")
    torch.nn.init.normal_(localization.weight, std=1e-3)

    def gradient(enabled):
        localization.zero_grad()
        scaler = torch.amp.GradScaler("cuda", init_scale=256.0, enabled=enabled)
        with torch.autocast("cuda", torch.float16, enabled=enabled):
            theta = localization(images.flatten(1)).view(-1, 2, 3)
            theta = theta + torch.eye(2, 3, device="cuda", dtype=theta.dtype)
            pixels = images.half() if enabled else images
            warped = stn_cuda.sample(pixels, stn_cuda.Affine(theta))
            loss = warped.float().square().mean()
        assert warped.dtype == pixels.dtype
        scaler.scale(loss).backward()
        return localization.weight.grad / (scaler.get_scale() if enabled else 1.0)

    expected = gradient(False)
    actual = gradient(True)
    # A theta rounded to half moves looks by up to 1/64 of a pixel: of 256 a few pass into the next
    # one, where the gradient jumps. (On the CPU 0.4 to 5 % for four seeds.)
    assert (actual - expected).norm() <= 0.2 * expected.norm()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_device_that_is_not_current():
    x, theta, grid = (t.detach().to("cuda:1").requires_grad_() for t in training_arguments())
    results = training_step(x, theta, grid)
    assert all(t.device == x.device for t in results)
    for actual, expected in zip(results, training_step(*training_arguments()), strict=True):
        torch.testing.assert_close(actual.cpu(), expected.cpu(), rtol=1e-4, atol=1e-4)
