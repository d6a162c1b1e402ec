"""accelerate(): code that calls torch's ``F.grid_sample`` and ``F.affine_grid`` runs our kernels.

Where to step in. Both are Python functions that check their arguments, warn, and then call
``torch.grid_sampler`` or ``torch.affine_grid_generator``, which they look up in the module
``torch`` at every call. So these two attributes are what is exchanged, for as long as somebody
wants it. That reaches every caller, whatever name it knows ``F.grid_sample`` by and however early
it imported it; checks, warnings, subclasses and function modes are torch's own code; and a call of
any other function costs nothing. The other ways:

- A TorchFunctionMode is told of every function and every method of a tensor, a few microseconds
  each, and makes torch.compile trace it.
- ``F.grid_sample`` itself, exchanged, would miss those who did ``from torch.nn.functional import
  grid_sample``, and torch.jit.script and torch.compile know that function by its identity.
- Kernels put under ``aten::grid_sampler_2d`` are the whole process', compiled and scripted code
  included; in Python they cost more than a small call does, and cannot tell who calls.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary, has_torch_function_variadic

from stn_cuda._extension import _C, build_info

# As torch.grid_sampler numbers them.
_MODES = {0: "bilinear", 1: "nearest", 2: "bicubic"}
_PADDING_MODES = {0: "zeros", 1: "border", 2: "reflection"}

# What autocast brings to float32 on the CPU.
_AUTOCAST_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# How our checks refuse, before any kernel starts. torch is asked then: it can, or says why not.
_REFUSALS = (RuntimeError, ValueError, TypeError, LookupError)

_HAS_CUDA = build_info()["cuda"] is not None


def accelerate() -> Acceleration:
    """Have ``F.grid_sample`` and ``F.affine_grid`` run our kernels, in any code that calls them.

    Called plainly it holds for the process, from now on, until the returned handle's ``remove()``.
    In a ``with`` statement it holds for the block only, and there for what runs in the same context
    (:mod:`contextvars`): the thread, or the asyncio task and the tasks that it starts. Both can be
    nested and mixed, and ended in any order. (Between the call and the block, an instant, it holds
    for the process: the call cannot know what comes.)

    It reaches calls made from Python: kornia's, MONAI's, torchvision's, your own, under whatever
    name they imported the functions. Arguments, warnings, errors, dtypes and the contiguous memory
    format of results are torch's. What our kernels do not take is left to torch: other devices and
    dtypes, bicubic volumes, tensor subclasses and modes that look at single operations, and
    ``affine_grid`` under autocast. So is what compiles or records the calls (torch.compile's
    backends, torch.export, torch.jit.script, torch.jit.trace): its result is as without us.

    Results differ from torch's by rounding, with ``nearest`` at ties, too, and in these points:

    - float16 and bfloat16 are computed in float32 and rounded once; torch's CPU kernels are wrong
      for large images.
    - NaN coordinates are read as -1, and a pixel of weight 0 is not read, be it NaN.
    - On CUDA, gradients are there under ``torch.use_deterministic_algorithms(True)``, where torch
      raises.

    The backward follows its forward, wherever it runs. A forward that ``torch.utils.checkpoint``
    repeats does not: it runs where the backward does, on CUDA in autograd's threads, which no block
    reaches. For these, accelerate the process.

    Returns:
        Acceleration: the handle. A context manager, and ``remove()``.

    Example::

        with stn_cuda.accelerate():
            y = kornia.geometry.transform.warp_affine(x, matrix, (224, 224))

        stn_cuda.accelerate()  # for the process
    """
    return Acceleration()


# --- who wants it -----------------------------------------------------------------------------

_lock = threading.Lock()
_handles = 0  # not yet removed, of either kind
_for_the_process = 0  # of these, those that hold everywhere

# The innermost handle entered in this context. Contexts are copied (a task's), so that an outer
# handle may be removed while others still refer to it: what counts is its state.
_innermost: ContextVar[Acceleration | None] = ContextVar("stn_cuda.accelerate", default=None)


class Acceleration:
    """What :func:`accelerate` returns; made there only."""

    def __init__(self) -> None:
        global _handles, _for_the_process
        with _lock:
            if not _handles:
                _exchange()
            _handles += 1
            _for_the_process += 1
            self._state = "process"
        self._outer: Acceleration | None = None

    def remove(self) -> None:
        """End it. Again, or inside of its block, does no harm."""
        global _handles, _for_the_process
        with _lock:
            if self._state != "removed":
                _for_the_process -= self._state == "process"
                self._state = "removed"
                _handles -= 1
                if not _handles:
                    _restore()
        current = _innermost.get()
        if current is not None and current._state == "removed":
            _innermost.set(current._living())

    def __enter__(self) -> Acceleration:
        global _for_the_process
        current = _innermost.get()
        outer = None if current is None else current._living()
        with _lock:
            if self._state != "process":
                was = "entered" if self._state == "block" else "removed"
                raise RuntimeError(
                    f"accelerate: a handle serves one with statement, got one that was {was} "
                    "before; call stn_cuda.accelerate() again"
                )
            _for_the_process -= 1
            self._state = "block"
            self._outer = outer
        _innermost.set(self)
        return self

    def __exit__(self, *_) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<stn_cuda.accelerate() handle: {self._state}>"

    def _living(self) -> Acceleration | None:
        """The innermost of this handle and those around it that is not removed."""
        handle: Acceleration | None = self
        while handle is not None and handle._state == "removed":
            handle = handle._outer
        return handle


def _wanted() -> bool:
    """Whether the running context, or the process, is accelerated."""
    if _for_the_process:
        return True
    handle = _innermost.get()
    return handle is not None and handle._living() is not None


# --- what stands in torch's place -------------------------------------------------------------


def _eager() -> bool:
    """Whether nothing but autograd looks at the ops that are called."""
    # Modes count, fake or record the ops that they know. A trace may be exported (to ONNX, say) or
    # loaded where there is no stn_cuda.
    return not torch._C._len_torch_dispatch_stack() and not torch._C._is_tracing()


def _served(tensor: Tensor) -> bool:
    """Whether our kernels take this kind of tensor."""
    # Fake, functional, distributed tensors ...: each op is theirs to answer.
    kind = type(tensor)
    return (
        kind is Tensor or getattr(kind, "__torch_dispatch__", None) is Tensor.__torch_dispatch__
    ) and (tensor.is_cpu or (_HAS_CUDA and tensor.is_cuda))


def _autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on where the tensor is. (The first question is the cheap one.)"""
    return torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(
        "cpu" if tensor.is_cpu else "cuda"
    )


def _autocast(input: Tensor, grid: Tensor) -> tuple[Tensor, Tensor] | None:
    """grid_sampler's arguments as torch's autocast casts them; None where torch is to answer.

    Its lists have grid_sampler on the CPU among what runs in float32, on CUDA among what runs in
    the widest dtype of its arguments (ATen/autocast_mode.h).
    """
    on_cpu = input.is_cpu
    known = _AUTOCAST_DTYPES if on_cpu else (torch.float32, torch.get_autocast_dtype("cuda"))
    if input.dtype not in known or grid.dtype not in known:
        return None
    if on_cpu or input.dtype is not grid.dtype:
        return input.float(), grid.float()
    return input, grid


def _sample(input, grid, interpolation_mode, padding_mode, align_corners) -> Tensor | None:
    if _autocasts(input):
        cast = _autocast(input, grid)
        if cast is None:
            return None
        input, grid = cast
    # What our kernels take and torch refuses.
    if (
        input.dtype is not grid.dtype
        or input.shape[0] != grid.shape[0]
        or type(align_corners) is not bool
    ):
        return None
    mode, padding = _MODES[interpolation_mode], _PADDING_MODES[padding_mode]
    output = _sample_kernel(input, grid, "grid", (), mode, padding, align_corners)
    # Ours keeps channels_last; code around torch's may count on .view().
    return output if output.is_contiguous() else output.contiguous()


def _grid(theta, size, align_corners) -> Tensor | None:
    if (
        theta.shape[0] != size[0]  # which would be broadcast
        or type(align_corners) is not bool
        # Autocast reaches into torch's kernel, whose matrix product comes out in half precision.
        or _autocasts(theta)
    ):
        return None
    return _grid_kernel(theta, "affine", size[2:], align_corners)


# Directly: whether something compiles or traces has been asked.
_sample_kernel, _grid_kernel = _C.sample, _C.warp_grid
_torch_grid_sampler = torch.grid_sampler
_torch_affine_grid_generator = torch.affine_grid_generator


def grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners):
    """:func:`torch.grid_sampler` while accelerated."""
    # First, so that torch.compile sees torch's function and nothing else.
    if not torch.compiler.is_compiling() and _wanted():
        result = None
        try:
            if (
                not has_torch_function_variadic(input, grid)
                and _eager()
                and _served(input)
                and _served(grid)
            ):
                result = _sample(input, grid, interpolation_mode, padding_mode, align_corners)
        except _REFUSALS:
            pass
        if result is not None:
            return result
    return _torch_grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


def affine_grid_generator(theta, size, align_corners):
    """:func:`torch.affine_grid_generator` while accelerated."""
    if not torch.compiler.is_compiling() and _wanted():
        result = None
        try:
            if not has_torch_function_unary(theta) and _eager() and _served(theta):
                result = _grid(theta, size, align_corners)
        except _REFUSALS:
            pass
        if result is not None:
            return result
    return _torch_affine_grid_generator(theta, size, align_corners)


# --- the exchange -----------------------------------------------------------------------------

# name in torch: (torch's, ours)
_EXCHANGED = {
    "grid_sampler": (_torch_grid_sampler, grid_sampler),
    "affine_grid_generator": (_torch_affine_grid_generator, affine_grid_generator),
}
_found: dict[str, object] = {}  # what stood in torch before


def _exchange() -> None:
    """Put ours into torch. With the lock held."""
    if not _found:
        _tell_torchscript()
    for name, (torchs, ours) in _EXCHANGED.items():
        found = getattr(torch, name)
        _found[name] = torchs if found is ours else found
        setattr(torch, name, ours)


def _restore() -> None:
    """Put back what was found, unless somebody else has put theirs there since."""
    for name, (_, ours) in _EXCHANGED.items():
        if getattr(torch, name) is ours:
            setattr(torch, name, _found[name])


def _tell_torchscript() -> None:
    """Have scripted code find torch's op under both functions, whenever it is scripted.

    torch.jit knows ops by their functions. It makes its table when it first scripts something, from
    what stands in torch then and from a list.
    """
    builtins = torch.jit._builtins
    for name, functions in _EXCHANGED.items():
        for function in functions:
            builtins._builtin_ops.append((function, f"aten::{name}"))
            if builtins._builtin_table is not None:
                builtins._builtin_table[id(function)] = f"aten::{name}"
