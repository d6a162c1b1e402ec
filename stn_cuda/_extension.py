"""Loads the compiled module, once it is known to belong to the torch that runs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from stn_cuda._version import __version__

_REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."


def _missing() -> ImportError:
    folder = Path(__file__).parent
    return ImportError(
        f"stn_cuda in {folder} has no compiled module for {sys.implementation.cache_tag}: build it "
        f"with `pip install --no-build-isolation -e .` in {folder.parent}. If stn_cuda is "
        "installed elsewhere, Python took this source folder in its place because it was started "
        "here: start it in another folder"
    )


try:
    from stn_cuda import _build_config
except ImportError:
    raise _missing() from None

# Before the module is loaded: between two versions of torch it would fail with an undefined
# symbol, or worse, not fail.
if str(torch.__version__) != _build_config.TORCH_VERSION:
    raise ImportError(
        f"stn_cuda was built against torch {_build_config.TORCH_VERSION}, but torch "
        f"{torch.__version__} is running: rebuild it with `{_REBUILD}` in its source folder, or "
        f"install torch {_build_config.TORCH_VERSION}"
    )
if __version__ != _build_config.VERSION:
    raise ImportError(
        f"stn_cuda's compiled module is of version {_build_config.VERSION}, but its Python code of "
        f"{__version__}: rebuild it with `{_REBUILD}` in its source folder"
    )

try:
    import stn_cuda._C as _C
except ModuleNotFoundError:
    raise _missing() from None
except ImportError as error:
    if error.__cause__ is None:
        raise
    # What the module itself raised stands behind pybind11's "initialization failed".
    raise ImportError(str(error.__cause__)) from None

__all__ = ["_C", "build_info"]


def build_info() -> dict:
    """What this installation of stn_cuda was built for, and what it runs on.

    Returns:
        dict: with the keys

        - ``version`` (str): of the package
        - ``torch`` (str): version of torch that it was built against, which is the one running
        - ``cuda`` (str or None): version of the CUDA toolkit of the CUDA part, such as ``"13.0"``;
          None: the CPU part alone was built
        - ``cuda_architectures`` (list of str): GPU code inside, in nvcc's names as
          ``torch.cuda.get_arch_list()`` has them: ``sm_90`` is a binary, ``compute_90`` is PTX,
          which later GPUs compile for themselves. Empty without CUDA
        - ``cpu_isa`` (str): ``"baseline"``, ``"avx2"`` or ``"avx512"``, the instruction set of the
          CPU kernels: the best that the processor has, or what the environment variable
          ``STN_CUDA_ISA`` said when stn_cuda was imported
        - ``threads`` (int): threads of the CPU kernels, which are torch's
          (``torch.set_num_threads``)

    Example::

        >>> stn_cuda.build_info()["cpu_isa"]
        'avx512'
    """
    return {
        "version": _build_config.VERSION,
        "torch": _build_config.TORCH_VERSION,
        "cuda": _build_config.CUDA_VERSION,
        "cuda_architectures": list(_build_config.CUDA_ARCHITECTURES),
        "cpu_isa": _C.cpu_isa(),
        "threads": _C.num_threads(),
    }
