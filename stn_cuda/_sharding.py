"""How the ops work on DTensors: each process on its part, without moving any.

A sample is computed point by point, image by image and channel by channel, so what is sharded along
one of these stays sharded. As in an einsum, the dimensions have labels: ``n`` (batch), ``c``
(channels), ``y``, ``x``, ``z`` (the points of the output). What is sharded along a label is sharded
along it in every tensor that has it and replicated in the others; a result that has it is sharded,
and a result that lacks it is a sum over it, of which each process has a part: ``Partial``.

The rules are given to the dispatcher (``torch.library.register_torch_dispatch``), and not as
strategies (``register_sharding``): one argument of ``splat`` is a shape, which must be the part's;
and what a strategy said is remembered by the tensors alone, where ours depends on the map, and the
result's shape on ``size``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stn_cuda._imports import when_imported
from stn_cuda.ops import FREE_MAPS

#: The labels of a tensor's dimensions; None: a dimension that cannot be sharded.
Labels = tuple[str | None, ...]

_POINTS = ("y", "x", "z")


def _points(dims: int, map: str) -> Labels:
    # A map that takes the points from their number: a part of them would look elsewhere.
    return _POINTS[:dims] if FREE_MAPS.get(map) is False else (None,) * dims


def _image(dims: int, map: str) -> Labels:
    return ("n", "c", *[None] * (dims - 2))


def _values(dims: int, map: str) -> Labels:
    return ("n", "c", *_points(dims - 2, map))


def _slopes(dims: int, map: str) -> Labels:
    values = _values(dims - 1, map)
    return (*values[:2], None, *values[2:])


def _mask(dims: int, map: str) -> Labels:
    return ("n", None, *_points(dims - 2, map))


def _warp(dims: int, map: str) -> Labels:
    return ("n", *_points(dims - 2, map), None) if map in FREE_MAPS else _batch(dims, map)


def _batch(dims: int, map: str) -> Labels:
    return ("n", *[None] * (dims - 1))


@dataclass(frozen=True)
class Rule:
    """What the dimensions of an op's tensors mean.

    Attributes:
        arguments (dict): for every tensor argument, by its name in the schema, what it is.
        results (tuple): what the results are.
        linear (tuple): the arguments in each of which the op is linear.
        shape (str, optional): the argument that says the first result's shape.
        sums (bool): whether a result is a sum over the labels that it lacks; else it is the same,
            whatever the part.
    """

    arguments: Mapping[str, Callable[[int, str], Labels]]
    results: tuple[Callable[[int, str], Labels], ...]
    linear: tuple[str, ...] = ()
    shape: str | None = None
    sums: bool = True


#: For every op of csrc/ops.cpp.
RULES = {
    "sample": Rule({"input": _image, "warp": _warp}, (_values,), ("input",)),
    "sample_filled": Rule({"input": _image, "warp": _warp, "fill": _image}, (_values,)),
    "sample_masked": Rule(
        {"input": _image, "warp": _warp, "fill": _image}, (_values, _mask), sums=False
    ),
    "splat": Rule({"values": _values, "warp": _warp}, (_image,), ("values",), shape="shape"),
    "sample_grad_warp": Rule(
        {"grad": _values, "input": _image, "warp": _warp}, (_warp,), ("grad", "input")
    ),
    "sample_derivative": Rule(
        {"input": _image, "warp": _warp, "tangent": _warp}, (_values,), ("input", "tangent")
    ),
    "splat_derivative": Rule(
        {"values": _values, "warp": _warp, "tangent": _warp},
        (_image,),
        ("values", "tangent"),
        shape="shape",
    ),
    "sample_grad_warp_derivative": Rule(
        {"grad": _values, "input": _image, "warp": _warp, "tangent": _warp},
        (_warp,),
        ("grad", "input", "tangent"),
    ),
    "sample_with_derivative": Rule(
        {"input": _image, "warp": _warp, "tangent": _warp}, (_values, _values), ("input",)
    ),
    "sample_with_gradient": Rule({"input": _image, "warp": _warp}, (_values, _slopes), ("input",)),
    "warp_grid": Rule({"warp": _batch}, (_batch,)),
    "warp_grid_backward": Rule({"grad": _batch, "warp": _batch}, (_batch,), ("grad",)),
    "warp_grid_derivative": Rule({"warp": _batch, "tangent": _batch}, (_batch,), ("tangent",)),
    "warp_grid_backward_derivative": Rule(
        {"grad": _batch, "warp": _batch, "tangent": _batch}, (_batch,), ("grad", "tangent")
    ),
}


def _labels(kind: Callable[[int, str], Labels], tensor: Tensor, map: str) -> Labels:
    labels = kind(tensor.dim(), map)
    # A batch of 1 serves the whole batch of the others: it is not the one that is sharded.
    return (None, *labels[1:]) if tensor.shape[0] == 1 else labels


def _cost(have, want) -> float:
    """What it takes to redistribute, in passes of the tensor through the network, roughly."""
    if have.is_replicate() or (type(have) is type(want) and have == want):
        return 0  # a replica has every part
    # Gathering, or exchanging; a Partial is added up, too.
    return (1 if want.is_replicate() else 0.5) * (2 if have.is_partial() else 1)


def _choices(rule: Rule, tensors: dict, labels: dict, results: list, dim: int) -> Iterator[tuple]:
    """(placements by argument, placements of the results) that one dimension of a mesh can have."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    def placed(names: Labels, label: str, otherwise):
        return Shard(names.index(label)) if label in names else otherwise

    otherwise = Partial("sum") if rule.sums else Replicate()
    replicated = dict.fromkeys(tensors, Replicate())
    yield replicated, [Replicate() for _ in results]
    for label in ("n", "c", *_POINTS):
        if any(label in names for names in labels.values()):
            yield (
                {name: placed(labels[name], label, Replicate()) for name in tensors},
                [placed(names, label, otherwise) for names in results],
            )
    for name in rule.linear:
        # Not a tangent that is None; nor bytes, which are rounded.
        if name not in tensors or not tensors[name].is_floating_point():
            continue
        have = tensors[name].placements[dim]
        if have.is_partial() and have.reduce_op == "sum":
            yield {**replicated, name: have}, [have for _ in results]


def _on_meta(value):
    """A tensor of no data, of the whole shape."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _shape_here(shape: Sequence[int], names: Labels, parts: dict, labels: dict) -> list[int]:
    """``shape``, whose dimensions are called ``names``, with the extents that the parts have."""
    extents = {
        label: extent
        for name, part in parts.items()
        for label, extent in zip(labels[name], part.shape, strict=True)
        if label is not None
    }
    return [extents.get(name, extent) for name, extent in zip(names, shape, strict=True)]


def _run(rule: Rule, func, args: tuple, kwargs: dict):
    """``func`` on DTensors: as the rule says, after redistributing what cannot stay as it is."""
    from torch.distributed.tensor import DTensor

    op = func.name().removeprefix("stn_cuda::")
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    tensors = {name: given[name] for name in rule.arguments if given.get(name) is not None}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            raise RuntimeError(
                f"{op}: {name} must be a DTensor as the others are, got {type(tensor).__name__}; "
                "torch.distributed.tensor.distribute_tensor makes one of it"
            )
    meshes = [tensor.device_mesh for tensor in tensors.values()]
    mesh = meshes[0]
    if any(other != mesh for other in meshes):
        raise RuntimeError(f"{op}: all DTensors must be on the same mesh, got {meshes}")

    # Checks the whole shapes: those of the parts may fit where these do not.
    meta = func(**{name: _on_meta(value) for name, value in given.items()})
    single = isinstance(meta, Tensor)
    wholes = (meta,) if single else tuple(meta)
    map = given["map"]
    labels = {name: _labels(rule.arguments[name], tensors[name], map) for name in tensors}
    results = [_labels(k, whole, map) for k, whole in zip(rule.results, wholes, strict=True)]

    chosen = []
    for dim in range(mesh.ndim):

        def effort(choice, dim=dim):
            return sum(
                tensor.numel() * _cost(tensor.placements[dim], choice[0][name])
                for name, tensor in tensors.items()
            )

        # The first of the cheapest: what is replicated everywhere stays so.
        chosen.append(min(_choices(rule, tensors, labels, results, dim), key=effort))

    parts = {}
    for name, tensor in tensors.items():
        wanted = [arguments[name] for arguments, _ in chosen]
        if list(tensor.placements) != wanted:
            tensor = tensor.redistribute(placements=wanted)
        parts[name] = tensor.to_local()
    here = {**given, **parts}
    if rule.shape is not None:
        here[rule.shape] = _shape_here(given[rule.shape], results[0], parts, labels)
    if mesh.get_coordinate() is None:  # a process outside of the mesh
        values = [torch.empty(0, dtype=whole.dtype, device=mesh.device_type) for whole in wholes]
    else:
        values = func(**here)
        values = [values] if single else list(values)
    outputs = [
        DTensor.from_local(
            value,
            mesh,
            [placements[k] for _, placements in chosen],
            run_check=False,
            shape=whole.shape,
            stride=whole.stride(),
        )
        for k, (value, whole) in enumerate(zip(values, wholes, strict=True))
    ]
    return outputs[0] if single else tuple(outputs)


def _register() -> None:
    from torch.distributed.tensor import DTensor

    for op, rule in RULES.items():

        def dispatch(cls, func, types, args, kwargs=None, rule=rule):
            # Autograd is done above: to_local and from_local need not record.
            with torch.no_grad():
                return _run(rule, func, args, kwargs or {})

        torch.library.register_torch_dispatch(f"stn_cuda::{op}", DTensor, dispatch)


def register() -> None:
    """Make the ops work on DTensors, as soon as there can be any.

    torch.distributed.tensor takes half as long to import as torch itself; most never need it.
    """
    if torch.distributed.is_available():
        when_imported("torch.distributed.tensor", _register)
