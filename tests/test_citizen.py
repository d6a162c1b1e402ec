"""What programs do besides computing: copy, save and share; work in other processes and threads."""

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import homographies, image, scattered_grid, thetas
from torch.utils.data import DataLoader, Dataset

import stn_cuda
from stn_cuda.nn import SpatialTransformer
from stn_cuda.tutorial import TutorialLocalization

WARPS = {
    "affine 2-D": (stn_cuda.Affine, thetas(3, 2)),
    "affine 3-D": (stn_cuda.Affine, thetas(3, 3)),
    "projective 2-D": (stn_cuda.Projective, homographies(3, 2)),
    "projective 3-D": (stn_cuda.Projective, homographies(3, 3)),
    "thin-plate spline": (stn_cuda.ThinPlateSpline, scattered_grid(3, (2, 2)).flatten(1, 2)),
    "flow 2-D": (stn_cuda.Flow, torch.linspace(-2, 2, 180).view(3, 2, 5, 6)),
    "flow 3-D": (stn_cuda.Flow, torch.linspace(-2, 2, 1080).view(3, 3, 5, 6, 4)),
}


def saved_and_loaded(value, weights_only):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda value, p=protocol: pickle.loads(pickle.dumps(value, p))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "torch.save": lambda value: saved_and_loaded(value, weights_only=False),
}


# --- warps ------------------------------------------------------------------------------------


@pytest.mark.quick
def test_every_warp_is_tried():
    public = {getattr(stn_cuda, name) for name in stn_cuda.__all__}
    warps = {w for w in public if isinstance(w, type) and issubclass(w, stn_cuda.Warp)}
    tried = {make for make, _ in WARPS.values()} | {stn_cuda.Compose}
    assert tried == warps - {stn_cuda.Warp}


@pytest.mark.quick
@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("how", [*COPIES, "torch.load, weights only"])
def test_warps_can_be_copied_and_saved(name, how):
    make, parameters = WARPS[name]
    warp = make(parameters)
    copied = COPIES[how](warp) if how in COPIES else saved_and_loaded([warp], weights_only=True)[0]
    assert type(copied) is make
    assert torch.equal(copied.parameters, warp.parameters)
    # What the warp was made of: a spline solves for its parameters anew.
    given = "targets" if make is stn_cuda.ThinPlateSpline else "parameters"
    assert torch.equal(getattr(copied, given), getattr(warp, given))
    shared = getattr(copied, given).data_ptr() == parameters.data_ptr()
    assert shared == (how == "copy")
    size = (5, 6, 4)[: 3 if "3-D" in name else 2]
    assert torch.equal(copied.grid(size), warp.grid(size))


@pytest.mark.quick
@pytest.mark.parametrize("how", [*COPIES, "torch.load, weights only"])
def test_chains_can_be_copied_and_saved(how):
    chain = stn_cuda.Compose(*(make(of) for name, (make, of) in WARPS.items() if "3-D" not in name))
    copied = (
        COPIES[how](chain) if how in COPIES else saved_and_loaded([chain], weights_only=True)[0]
    )
    assert type(copied) is stn_cuda.Compose and repr(copied) == repr(chain)
    for one, other in zip(copied.parameters, chain.parameters, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(copied.grid((5, 6)), chain.grid((5, 6)))


@pytest.mark.quick
def test_copies_of_a_warp_that_is_learned():
    theta = torch.nn.Parameter(thetas(2, 2))
    copied = copy.deepcopy(stn_cuda.Affine(theta))
    assert isinstance(copied.theta, torch.nn.Parameter) and copied.theta.requires_grad
    copied.grid((3, 3)).sum().backward()
    assert copied.theta.grad is not None and theta.grad is None
    # What was computed belongs to its graph, of which there is no copy: torch says so, and a copy
    # that quietly lost its gradient would be worse.
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(stn_cuda.Affine(2 * theta))


# --- modules ----------------------------------------------------------------------------------


def transformer():
    torch.manual_seed(0)
    module = SpatialTransformer(TutorialLocalization(), size=(9, 11), padding_mode="border")
    torch.nn.init.normal_(module.localization[-1].weight, std=0.02)
    return module


@pytest.mark.quick
@pytest.mark.parametrize("how", COPIES)
def test_modules_can_be_copied_and_saved(how):
    module, images = transformer(), image((2, 1, 28, 28))
    copied = COPIES[how](module)
    assert torch.equal(copied(images), module(images))
    assert repr(copied) == repr(module)


@pytest.mark.quick
def test_state_dict():
    module, images = transformer(), image((2, 1, 28, 28))
    state = saved_and_loaded(module.state_dict(), weights_only=True)
    assert list(state) == [name for name, _ in module.named_parameters()]
    assert all(name.startswith("localization.") for name in state)
    other = SpatialTransformer(TutorialLocalization(), size=(9, 11), padding_mode="border")
    assert not torch.equal(other(images), module(images))
    other.load_state_dict(state)
    assert torch.equal(other(images), module(images))


# --- several processes ------------------------------------------------------------------------


def look(transformer, warp, x):
    """(transformer's output, warp's, the gradients of the latter's sum)."""
    theta = warp.theta.clone().requires_grad_()
    x = x.clone().requires_grad_()
    y = stn_cuda.sample(x, stn_cuda.Affine(theta), (12, 10))
    return transformer(x).detach(), y.detach(), *torch.autograd.grad(y.sum(), (x, theta))


class Augmented(Dataset):
    """Images, each seen through a warp and a transformer, in whichever process."""

    def __init__(self):
        self.images = image((6, 1, 28, 28))
        self.warp = stn_cuda.Affine(thetas(6, 2))
        self.transformer = transformer()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        warp = stn_cuda.Affine(self.warp.theta[k : k + 1])
        return look(self.transformer, warp, self.images[k : k + 1])


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
# Python warns of forking where there are threads, which torch's are.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_of_a_loader(start, threads):
    if start not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} on this platform")
    threads(2)
    data = Augmented()
    expected = [data[k] for k in range(len(data))]  # this process's threads have worked by now
    options = dict(num_workers=2, multiprocessing_context=start, timeout=60)
    loader = DataLoader(data, batch_size=None, **options)
    for results, references in zip(loader, expected, strict=True):
        for result, reference in zip(results, references, strict=True):
            assert torch.equal(result, reference)


def _learn(module, warp):
    with torch.no_grad():
        module.localization[-1].bias += 0.25
        warp.theta.mul_(0.5)


# As above.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_shared_memory(threads):
    if "fork" not in torch.multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    threads(1)
    module, images = transformer().share_memory(), image((2, 1, 28, 28))
    warp = stn_cuda.Affine(thetas(2, 2).share_memory_())
    before, theta = module(images), warp.theta.clone()
    bias = module.localization[-1].bias.detach().clone()
    process = torch.multiprocessing.get_context("fork").Process(target=_learn, args=(module, warp))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert torch.equal(module.localization[-1].bias, bias + 0.25)
    assert torch.equal(warp.theta, 0.5 * theta)
    assert not torch.equal(module(images), before)


# --- several threads --------------------------------------------------------------------------


def differentiated(case):
    """Output and gradients of one of `CALLS`."""
    x, warp, options = case
    x, warp = x.clone().requires_grad_(), warp.clone().requires_grad_()
    affine = warp.dim() == 3
    y = stn_cuda.sample(
        x, stn_cuda.Affine(warp) if affine else warp, (19, 23) if affine else None, **options
    )
    return y.detach(), *torch.autograd.grad(y, (x, warp), torch.cos(y.detach()))


CALLS = [
    (image((2, 3, 20, 30)), thetas(2, 2), {}),
    (image((2, 3, 20, 30)), scattered_grid(2, (17, 40)), {"mode": "bicubic"}),
    (
        image((3, 16, 9, 13)).contiguous(memory_format=torch.channels_last),
        thetas(1, 2),
        {"padding_mode": "reflection"},
    ),
    (image((1, 2, 7, 8, 9)), scattered_grid(2, (6, 9, 5)), {"padding_mode": "border"}),
    (image((2, 4, 15, 15), torch.bfloat16), thetas(2, 2), {"align_corners": True}),
    (image((1, 1, 300, 300)), scattered_grid(1, (200, 200)), {"mode": "nearest"}),
]


@pytest.mark.parametrize("kernel_threads", [1, 2])
def test_several_threads_at_once(kernel_threads, threads):
    """As alone, bit for bit: nothing that the kernels keep is shared."""
    threads(kernel_threads)
    alone = [differentiated(case) for case in CALLS]
    workers = 4
    together = threading.Barrier(workers)

    def work(worker):
        torch.set_num_threads(kernel_threads)  # which is each thread's own
        together.wait(60)
        order = [(worker + k) % len(CALLS) for k in range(4 * len(CALLS))]
        return [(which, differentiated(CALLS[which])) for which in order]

    with ThreadPoolExecutor(workers) as pool:
        for results in pool.map(work, range(workers)):
            for which, result in results:
                for value, reference in zip(result, alone[which], strict=True):
                    assert torch.equal(value, reference), CALLS[which][2]
