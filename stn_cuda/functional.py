"""The public functions: :func:`sample`, its derivative :func:`sample_with_gradient` and its adjoint
:func:`splat`. (torch's own: drop_in.py.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import (
    handle_torch_function,
    has_torch_function,
    has_torch_function_variadic,
)

from stn_cuda import _chains, ops
from stn_cuda.warps import Compose, Warp


def _check_tensors(op: str, **tensors):
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}")


def _overridden(
    function, overloads, image, warp, size, mode, padding_mode, align_corners, coords, **others
):
    """What the ``__torch_function__`` of one of the tensors makes of the call."""
    settings = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    return handle_torch_function(
        function, overloads, image, warp, size, **settings, coords=coords, **others
    )


def _text(name):
    # String enums are strings; anything else is refused by name, among the known ones.
    return name if isinstance(name, str) else str(name)


def _names_of(op: str, dims: int, padding_mode) -> str:
    """One name, or one for each axis with commas between, as the ops take them."""
    if not isinstance(padding_mode, (list, tuple)):
        if "," in _text(padding_mode):
            raise ValueError(
                f"{op}: padding_mode must be a name, or a sequence of one for each spatial axis, "
                f"got {padding_mode!r}"
            )
        return _text(padding_mode)
    names = [_text(name) for name in padding_mode]
    if dims in (2, 3) and len(names) != dims:  # The op refuses other images.
        raise ValueError(
            f"{op}: padding_mode must have {dims} entries, one for each spatial axis in the "
            f"order of the tensor's axes, got {tuple(names)}"
        )
    return names[0] if len(set(names)) == 1 else ",".join(names)


def _settings(op: str, dims: int, mode, padding_mode, align_corners):
    if not isinstance(padding_mode, str) or "," in padding_mode:
        padding_mode = _names_of(op, dims, padding_mode)
    return mode if isinstance(mode, str) else str(mode), padding_mode, bool(align_corners)


# What a grid tensor is, by the coordinates it has.
_GRIDS = {"normalized": "grid", "pixel": "pixel_grid"}


def _grid_map(op: str, warp, coords):
    """The kernels' name of a grid with these coordinates; normalised ones with a warp object."""
    map = _GRIDS.get(coords if isinstance(coords, str) else str(coords))
    if map is None:
        raise ValueError(
            f"{op}: expected coords to be 'normalized' or 'pixel', but got: {coords!r}"
        )
    if map != "grid" and isinstance(warp, Warp):
        raise ValueError(
            f"{op}: coords must be 'normalized' with a warp object, which knows its own, "
            f"got {coords!r}"
        )
    return map


def _map_of(op: str, warp, coords):
    """A warp's tensor, and the kernels' name of what it is."""
    map = _grid_map(op, warp, coords)
    return (warp.parameters, warp.map) if isinstance(warp, Warp) else (warp, map)


def _through_chain(
    function, image, warp: Compose, size, mode, padding_mode, align_corners, coords, **others
):
    """What ``function``, one of the three below, returns of a chain."""
    op = function.__name__
    overloads = (image, *warp.parameters, *others.values())
    if has_torch_function(overloads):
        settings = (mode, padding_mode, align_corners, coords)
        return _overridden(function, overloads, image, warp, size, *settings, **others)
    _grid_map(op, warp, coords)
    adjoint = function is splat
    _check_tensors(op, **{"values" if adjoint else "input": image})
    if image.dim() != warp.dims + 2:
        raise ValueError(
            f"{op}: {'values' if adjoint else 'input'} must be {warp.dims + 2}-D for a Compose of "
            f"{warp.dims} dimensions, got shape {tuple(image.shape)}"
        )
    if adjoint:
        size = image.shape[2:] if size is None else ops.extents(op, size)
        _check_image_size(op, size, warp.dims)
        in_size, out_size = size, image.shape[2:]
    else:
        in_size, out_size = image.shape[2:], warp.output_size(op, size, image.shape[2:])
    chain = warp.fused(out_size) if function is sample and not others else None
    if chain is not None and _chains.can_fuse(image, chain):
        settings = _settings(op, warp.dims, mode, padding_mode, align_corners)
        return _chains.sample(image, chain, out_size, *settings)
    looks, coords = warp.looks(in_size, out_size, bool(align_corners))
    if not adjoint:
        size = out_size if isinstance(looks, Warp) else None
    settings = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    return function(image, looks, size, **settings, coords=coords, **others)


def _output_size(op: str, map: str, size, default):
    if map in _GRIDS.values() and size is not None:
        raise ValueError(f"{op}: size must be None with a grid, whose own size it is, got {size!r}")
    if size is None:
        return () if map in ops.FREE_MAPS else default
    return ops.extents(op, size)


def _check_image_size(op: str, size, dims: int):
    if dims not in (2, 3):
        return  # The op refuses such values.
    # What a compiler does not know yet, the op checks.
    if len(size) != dims or any(isinstance(extent, int) and extent < 1 for extent in size):
        raise ValueError(
            f"{op}: size must have {dims} positive entries, the image's spatial size, "
            f"got {tuple(size)}"
        )


def _fill_of(op: str, input: Tensor, fill) -> Tensor:
    """``fill`` as the op takes it, (1, C) in the input's dtype; of bytes in float32."""
    dtype = ops.real_dtype(input)
    channels = input.shape[1] if input.dim() > 1 else 1  # The op refuses such an input.
    if isinstance(fill, Tensor):
        if fill.dim() > 1 or (fill.dim() == 1 and fill.shape[0] != channels):
            raise ValueError(
                f"{op}: fill must be a number or have one entry for each of the {channels} "
                f"channels, got shape {tuple(fill.shape)}"
            )
        return fill.to(dtype).expand(1, channels)
    if not isinstance(fill, (int, float, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"{op}: fill must be a number or a Tensor, got {type(fill).__name__}")
    return torch.full((1, 1), fill, dtype=dtype, device=input.device).expand(1, channels)


def _asked(fill, return_mask) -> dict:
    """What :func:`sample` is told besides, if it is."""
    asked = fill is not None or return_mask
    return {"fill": fill, "return_mask": return_mask} if asked else {}


def sample(
    input: Tensor,
    warp: Tensor | Warp,
    size: Sequence[int] | None = None,
    *,
    mode: str = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    align_corners: bool = False,
    coords: str = "normalized",
    fill: None | float | Tensor = None,
    return_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Look at ``input`` through ``warp``.

    Each point of the output looks at the position in ``input`` that the warp gives it; the value
    there is interpolated between pixels. A warp object is evaluated inside the kernel, forward and
    backward, and its grid is never in memory.

    Args:
        input (Tensor[N, C, H, W] or Tensor[N, C, D, H, W]): images or volumes, in float32, float64,
            float16 or bfloat16, of any strides. Or in uint8, without derivatives: sampled in
            float32, rounded to the nearest number (halves to even), saturated; the mask is float32.
        warp (Tensor[N, Ho, Wo, 2], Tensor[N, Do, Ho, Wo, 3] or Warp): a grid of normalised
            coordinates (-1 and 1 are the borders; order x, y(, z)), or a warp object such as
            :class:`stn_cuda.Affine` or :class:`stn_cuda.Flow`. Of any of the four dtypes, whatever
            the input's: coordinates are computed in float32, in float64 where the warp is float64.
            NaN is read as -1.
        size: the output's spatial size, (Ho, Wo) or (Do, Ho, Wo). Default: the input's. A grid
            and a :class:`stn_cuda.Flow` have their own; with a grid tensor it must be None. A
            :class:`stn_cuda.Compose` whose last warp is a flow has the flow's by default.
        mode: ``"bilinear"`` (trilinear for volumes; the default), ``"nearest"``, or ``"bicubic"``
            (4-D input only; cubic convolution with a = -0.75).
        padding_mode: what lies outside: ``"zeros"`` (the default), ``"border"`` (the nearest
            border pixel), ``"reflection"`` (the image mirrored at its borders), ``"wrap"`` (the
            image repeated, its first pixel next to its last one, whatever ``align_corners``). Or a
            sequence of one name for each spatial axis, in the order of the tensor's axes:
            ``("border", "wrap")`` for a panorama that goes round along x.
        align_corners: whether -1 and 1 are the centres of the corner pixels (True) or their outer
            edges (False, the default).
        coords: what a grid tensor holds: ``"normalized"`` coordinates (the default), or those in
            ``"pixel"`` units, in which 0 is the first pixel's centre; ``align_corners`` then says
            only where ``"reflection"`` mirrors, and what NaN is read as.
        fill (float or Tensor[C]): what lies outside along the axes whose padding mode is
            ``"zeros"``, of which there must be one: the result is what it is without, plus
            ``(1 - M) * fill``, M being the sum of the weights of the pixels inside; where that is 1
            the result is the same bit for bit. Rounded to the input's dtype (of uint8 images to
            float32: the result is rounded once). Default: None, zeros.
        return_mask: whether to return, too, how much of each point's look lies inside the image,
            whatever the padding mode. Default: False.

    Returns:
        Tensor[N, C, Ho, Wo] or Tensor[N, C, Do, Ho, Wo]: in the input's dtype and memory format.
        A batch of 1 on either side serves the other's whole batch. Differentiable with respect to
        the input, to the warp and to ``fill``. On the CPU, where images have one channel and the
        warp requires grad, the forward pass already computes what its gradient is made of, which
        autograd keeps until then: for a grid, a flow or a flow between matrices a tensor of the
        gradient's size; for other warps one of the size of a grid, unless that is over 2 MiB.

        With ``return_mask`` a pair, of this and a Tensor[N, 1, Ho, Wo] or Tensor[N, 1, Do, Ho, Wo]
        in the input's dtype, from 0 to 1: of the pixel-sized square (cube) around a point's look,
        as ``"bilinear"`` weighs it, the part that the image's pixels' centres hold (``"bicubic"``
        likewise); with ``"nearest"`` 1 where the nearest pixel is inside. Differentiable with
        respect to the warp, unless the mode is ``"nearest"``. Of a warp with a batch of 1, the
        masks of all images are the same memory.

    Raises:
        TypeError: if ``input`` or ``warp`` is not a tensor (or warp), ``fill`` no number or tensor.
        ValueError: for an unknown ``mode`` or ``padding_mode``, a ``size`` that does not fit, a
            ``fill`` that has not C entries, or that no padding mode ``"zeros"`` makes use of.
        RuntimeError: if shapes, devices or dtypes do not fit, or a warp of uint8 images requires
            grad.

    Example::

        y = stn_cuda.sample(x, grid)
        y = stn_cuda.sample(x, stn_cuda.Affine(theta), size=(28, 28))
        y, mask = stn_cuda.sample(x, stn_cuda.Affine(theta), fill=0.5, return_mask=True)

    Jaderberg et al., *Spatial Transformer Networks*, 2015 (arXiv 1506.02025), equations (3), (5).
    """
    if isinstance(warp, Compose):
        settings = (mode, padding_mode, align_corners, coords)
        others = _asked(fill, return_mask)
        return _through_chain(sample, input, warp, size, *settings, **others)
    parameters, map = _map_of("sample", warp, coords)
    if has_torch_function_variadic(input, parameters, fill):
        settings = (mode, padding_mode, align_corners, coords)
        others = _asked(fill, return_mask)
        overloads = (input, parameters, fill)
        return _overridden(sample, overloads, input, warp, size, *settings, **others)
    _check_tensors("sample", input=input, grid=parameters)
    size = _output_size("sample", map, size, input.shape[2:])
    settings = _settings("sample", input.dim() - 2, mode, padding_mode, align_corners)
    if fill is not None:
        fill = _fill_of("sample", input, fill)
    if return_mask:
        output, mask = ops.sample_masked(input, parameters, fill, map, size, *settings)
        if mask.shape[0] != output.shape[0]:
            mask = mask.expand(output.shape[0], *mask.shape[1:])
        return output, mask
    if fill is not None:
        return ops.sample_filled(input, parameters, fill, map, size, *settings)
    return ops.sample(input, parameters, map, size, *settings)


def sample_with_gradient(
    input: Tensor,
    warp: Tensor | Warp,
    size: Sequence[int] | None = None,
    *,
    mode: str = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    align_corners: bool = False,
    coords: str = "normalized",
) -> tuple[Tensor, Tensor]:
    """Look at ``input`` through ``warp``, and at how steep it is there, in one pass.

    The second result is the derivative of each output value with respect to the position in
    ``input`` where its point looks: the image's gradient, warped, as registration and optical flow
    by least squares want it. Where the boundary rule holds a look fast (border, reflection at the
    corners) it is 0; where it mirrors a look, it has the mirrored sign.

    Args:
        input, warp, size, mode, padding_mode, align_corners, coords: as in :func:`sample`. The
            derivative of ``"nearest"``, a step function, is 0.

    Returns:
        Tensor[N, C, Ho, Wo] and Tensor[N, C, 2, Ho, Wo] (Tensor[N, C, Do, Ho, Wo] and
        Tensor[N, C, 3, Do, Ho, Wo]): what :func:`sample` returns, and its derivatives with respect
        to x, y(, z), per pixel of ``input``, in the input's dtype. Both are differentiable with
        respect to the input and to the warp; with respect to the warp in reverse mode only.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`sample`.

    Example::

        value, gradient = stn_cuda.sample_with_gradient(x, stn_cuda.Affine(theta))
        step = (gradient * (target - value).unsqueeze(2)).mean((-1, -2))  # of a translation

    Baker and Matthews, *Lucas-Kanade 20 Years On*, 2004, section 2 (the warped gradient).
    """
    if isinstance(warp, Compose):
        settings = (mode, padding_mode, align_corners, coords)
        return _through_chain(sample_with_gradient, input, warp, size, *settings)
    parameters, map = _map_of("sample_with_gradient", warp, coords)
    if has_torch_function_variadic(input, parameters):
        overloads = (input, parameters)
        return _overridden(
            sample_with_gradient,
            overloads,
            input,
            warp,
            size,
            mode,
            padding_mode,
            align_corners,
            coords,
        )
    _check_tensors("sample_with_gradient", input=input, grid=parameters)
    op = "sample_with_gradient"
    size = _output_size(op, map, size, input.shape[2:])
    settings = _settings(op, input.dim() - 2, mode, padding_mode, align_corners)
    return ops.sample_with_gradient(input, parameters, map, size, *settings)


def splat(
    values: Tensor,
    warp: Tensor | Warp,
    size: Sequence[int] | None = None,
    *,
    mode: str = "bilinear",
    padding_mode: str | Sequence[str] = "zeros",
    align_corners: bool = False,
    coords: str = "normalized",
) -> Tensor:
    """Add ``values`` into an image, each where its point looks: the adjoint of :func:`sample`.

    Each value is added to the pixels from which :func:`sample` would have interpolated it, with the
    same weights (push, scatter-add, forward warping): <sample(x, warp), y> = <x, splat(y, warp)>.
    To average what meets in a pixel, divide by the splat of ones.

    Args:
        values (Tensor[N, C, Ho, Wo] or Tensor[N, C, Do, Ho, Wo]): a value for each point of the
            warp, in float32, float64, float16 or bfloat16 (which add up in float32), of any
            strides.
        warp: as in :func:`sample`: where each point of ``values`` looks in the image.
        size: the image's spatial size, (H, W) or (D, H, W). Default: that of ``values``.
        mode, padding_mode, align_corners, coords: as in :func:`sample`. Values whose points look
            outside are lost with ``"zeros"``, and reach the border, the mirrored or the repeated
            pixel with the others.

    Returns:
        Tensor[N, C, H, W] or Tensor[N, C, D, H, W]: in the dtype and memory format of ``values``. A
        batch of 1 on either side serves the other's whole batch. Differentiable with respect to the
        values and to the warp. On CUDA the order of the additions, and so the last bits, are only
        fixed under ``torch.use_deterministic_algorithms(True)``.

    Raises:
        TypeError: if ``values`` or ``warp`` is not a tensor (or warp).
        ValueError: for an unknown ``mode`` or ``padding_mode``, or a ``size`` that does not fit.
        RuntimeError: if shapes, devices or dtypes do not fit.

    Example::

        image = stn_cuda.splat(values, stn_cuda.Affine(theta), size=(28, 28))
        mean = image / stn_cuda.splat(torch.ones_like(values), stn_cuda.Affine(theta), (28, 28))

    Niklaus and Liu, *Softmax Splatting*, 2020 (arXiv 2003.05534), equation (1), of any warp.
    """
    if isinstance(warp, Compose):
        settings = (mode, padding_mode, align_corners, coords)
        return _through_chain(splat, values, warp, size, *settings)
    parameters, map = _map_of("splat", warp, coords)
    if has_torch_function_variadic(values, parameters):
        overloads = (values, parameters)
        return _overridden(
            splat, overloads, values, warp, size, mode, padding_mode, align_corners, coords
        )
    _check_tensors("splat", values=values, grid=parameters)
    size = values.shape[2:] if size is None else ops.extents("splat", size)
    _check_image_size("splat", size, values.dim() - 2)
    settings = _settings("splat", values.dim() - 2, mode, padding_mode, align_corners)
    if values.dim() > 0 and parameters.dim() > 0 and values.shape[0] == 1:
        values = values.expand(parameters.shape[0], *values.shape[1:])
    return ops.splat(
        values,
        parameters,
        map,
        [*values.shape[:2], *size],
        ops.is_channels_last(values),
        *settings,
    )
