"""How torch.vmap maps the ops: its dimension and their batch become one batch.

A tensor that vmap does not map and whose batch is 1 stays as it is: the kernels serve the whole
batch with it, without a copy. One whose batch is larger is repeated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class _Fold:
    """The batch of size `mapped` (vmap's) times `batch` (the op's)."""

    def __init__(self, mapped: int, batch: int):
        self.mapped, self.batch = mapped, batch

    def shared(self, tensor: Tensor, dim: int | None) -> Tensor:
        """The tensor as part of the large batch; if it serves all of it, with a batch of 1."""
        return tensor if dim is None and tensor.shape[0] == 1 else self.whole(tensor, dim)

    def whole(self, tensor: Tensor, dim: int | None) -> Tensor:
        """The tensor as part of the large batch."""
        rest = tensor.shape[1:] if dim is None else tensor.movedim(dim, 0).shape[2:]
        tensor = tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0)
        return tensor.expand(self.mapped, self.batch, *rest).flatten(0, 1)

    def apart(self, result: Tensor, sums: bool = False) -> Tensor:
        """A result with vmap's dimension in front; `sums`: summed over the op's batch."""
        result = result.unflatten(0, (self.mapped, self.batch))
        return result.sum(1, keepdim=True) if sums else result


def _batch(tensor: Tensor, dim: int | None) -> int:
    return tensor.shape[0] if dim is None else tensor.movedim(dim, 0).shape[1]


def _fold(info, *tensors: tuple[Tensor, int | None]) -> _Fold:
    batches = [_batch(tensor, dim) for tensor, dim in tensors]
    if len(set(batches) - {1}) > 1:
        raise RuntimeError(
            "sample: input and warp must have the same batch size, or 1 on either side, got "
            + " and ".join(map(str, batches))
        )
    return _Fold(info.batch_size, next((n for n in batches if n != 1), 1))


#: Op -> what vmap calls in its place, with (info, the mapped dimensions, *arguments).
RULES: dict[str, Callable] = {}


def register() -> None:
    """Tell torch of the rules."""
    for name, rule in RULES.items():
        torch.library.register_vmap(f"stn_cuda::{name}", rule)


def _rule(name: str) -> Callable:
    def keep(rule: Callable) -> Callable:
        RULES[name] = rule
        return rule

    return keep


@_rule("sample")
def _sample(info, dims, input, warp, *rest):
    fold = _fold(info, (input, dims[0]), (warp, dims[1]))
    result = torch.ops.stn_cuda.sample(
        fold.shared(input, dims[0]), fold.shared(warp, dims[1]), *rest
    )
    return fold.apart(result), 0


@_rule("sample_with_gradient")
def _sample_with_gradient(info, dims, input, warp, *rest):
    fold = _fold(info, (input, dims[0]), (warp, dims[1]))
    results = torch.ops.stn_cuda.sample_with_gradient(
        fold.shared(input, dims[0]), fold.shared(warp, dims[1]), *rest
    )
    return tuple(fold.apart(result) for result in results), (0, 0)


def _moving(fold: _Fold, warp, warp_dim, tangent, tangent_dim) -> tuple[Tensor, Tensor | None]:
    """The warp and its tangent, which have one shape."""
    if tangent is None:
        return fold.shared(warp, warp_dim), None
    if warp_dim is None and tangent_dim is None and warp.shape[0] == 1:
        return warp, tangent
    return fold.whole(warp, warp_dim), fold.whole(tangent, tangent_dim)


@_rule("sample_derivative")
def _sample_derivative(info, dims, input, warp, tangent, *rest):
    fold = _fold(info, (input, dims[0]), (warp, dims[1]))
    moving = _moving(fold, warp, dims[1], tangent, dims[2])
    result = torch.ops.stn_cuda.sample_derivative(fold.shared(input, dims[0]), *moving, *rest)
    return fold.apart(result), 0


@_rule("sample_with_derivative")
def _sample_with_derivative(info, dims, input, warp, tangent, *rest):
    fold = _fold(info, (input, dims[0]), (warp, dims[1]))
    moving = _moving(fold, warp, dims[1], tangent, dims[2])
    results = torch.ops.stn_cuda.sample_with_derivative(fold.shared(input, dims[0]), *moving, *rest)
    return tuple(fold.apart(result) for result in results), (0, 0)


@_rule("sample_filled")
def _sample_filled(info, dims, input, warp, fill, *rest):
    fold = _fold(info, (input, dims[0]), (warp, dims[1]), (fill, dims[2]))
    # What lies around one image may be mapped by itself.
    part = fold.shared if dims[2] is None else fold.whole
    result = torch.ops.stn_cuda.sample_filled(
        part(input, dims[0]), fold.shared(warp, dims[1]), fold.shared(fill, dims[2]), *rest
    )
    return fold.apart(result), 0


@_rule("sample_masked")
def _sample_masked(info, dims, input, warp, fill, *rest):
    around = [] if fill is None else [(fill, dims[2])]
    fold = _fold(info, (input, dims[0]), (warp, dims[1]), *around)
    part = fold.shared if dims[2] is None else fold.whole
    output, mask = torch.ops.stn_cuda.sample_masked(
        part(input, dims[0]),
        fold.shared(warp, dims[1]),
        None if fill is None else fold.shared(fill, dims[2]),
        *rest,
    )
    if dims[1] is None and warp.shape[0] == 1:  # one mask for all
        return (fold.apart(output), mask), (0, None)
    return (fold.apart(output), fold.apart(mask)), (0, 0)


@_rule("splat")
def _splat(info, dims, values, warp, map, shape, *rest):
    fold = _fold(info, (values, dims[0]))
    image = torch.ops.stn_cuda.splat(
        fold.whole(values, dims[0]),
        fold.shared(warp, dims[1]),
        map,
        [fold.mapped * fold.batch, *shape[1:]],
        *rest,
    )
    return fold.apart(image, sums=shape[0] != fold.batch), 0


@_rule("splat_derivative")
def _splat_derivative(info, dims, values, warp, tangent, axis, map, shape, *rest):
    fold = _fold(info, (values, dims[0]))
    image = torch.ops.stn_cuda.splat_derivative(
        fold.whole(values, dims[0]),
        *_moving(fold, warp, dims[1], tangent, dims[2]),
        axis,
        map,
        [fold.mapped * fold.batch, *shape[1:]],
        *rest,
    )
    return fold.apart(image, sums=shape[0] != fold.batch), 0


@_rule("sample_grad_warp")
def _sample_grad_warp(info, dims, grad, input, warp, *rest):
    fold = _fold(info, (grad, dims[0]))
    result = torch.ops.stn_cuda.sample_grad_warp(
        fold.whole(grad, dims[0]), fold.shared(input, dims[1]), fold.whole(warp, dims[2]), *rest
    )
    return fold.apart(result, sums=_batch(warp, dims[2]) != fold.batch), 0


@_rule("sample_grad_warp_derivative")
def _sample_grad_warp_derivative(info, dims, grad, input, warp, tangent, *rest):
    fold = _fold(info, (grad, dims[0]))
    result = torch.ops.stn_cuda.sample_grad_warp_derivative(
        fold.whole(grad, dims[0]),
        fold.shared(input, dims[1]),
        fold.whole(warp, dims[2]),
        None if tangent is None else fold.whole(tangent, dims[3]),
        *rest,
    )
    return fold.apart(result, sums=_batch(warp, dims[2]) != fold.batch), 0


@_rule("warp_grid")
def _warp_grid(info, dims, warp, *rest):
    fold = _fold(info, (warp, dims[0]))
    return fold.apart(torch.ops.stn_cuda.warp_grid(fold.whole(warp, dims[0]), *rest)), 0


@_rule("warp_grid_backward")
def _warp_grid_backward(info, dims, grad, warp, *rest):
    fold = _fold(info, (grad, dims[0]))
    result = torch.ops.stn_cuda.warp_grid_backward(
        fold.whole(grad, dims[0]), fold.whole(warp, dims[1]), *rest
    )
    return fold.apart(result), 0


@_rule("warp_grid_derivative")
def _warp_grid_derivative(info, dims, warp, tangent, *rest):
    fold = _fold(info, (warp, dims[0]))
    result = torch.ops.stn_cuda.warp_grid_derivative(
        fold.whole(warp, dims[0]), fold.whole(tangent, dims[1]), *rest
    )
    return fold.apart(result), 0


@_rule("warp_grid_backward_derivative")
def _warp_grid_backward_derivative(info, dims, grad, warp, tangent, *rest):
    fold = _fold(info, (grad, dims[0]))
    result = torch.ops.stn_cuda.warp_grid_backward_derivative(
        fold.whole(grad, dims[0]), fold.whole(warp, dims[1]), fold.whole(tangent, dims[2]), *rest
    )
    return fold.apart(result), 0
