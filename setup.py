"""Builds the compiled module stn_cuda._C: its CPU part always, its CUDA part where it can.

    pip install --no-build-isolation .

The environment decides the rest:

    STN_CUDA_BUILD        auto (default): with CUDA when torch is a CUDA build and nvcc is found,
                          whether or not there is a GPU; cpu: without; cuda: with, or fail
    TORCH_CUDA_ARCH_LIST  GPU architectures as torch reads them, such as "8.0;9.0+PTX". Default:
                          those of the GPUs present, without any GPU DEFAULT_ARCHITECTURES below
    CUDA_HOME, CXX        the CUDA toolkit and the C++ compiler, where they are not on PATH
    MAX_JOBS              files compiled at the same time (default: ninja's choice)
    STN_CUDA_CPU          all (default): kernels for each instruction set that processors may have;
                          baseline: only those for any processor, built in less than half the time
    STN_CUDA_WALK         1: for the tests, with the CUDA kernels' walk on the CPU, which needs
                          neither CUDA nor a GPU (csrc/cuda/walk.cpp); default 0
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import setup

OLDEST_TORCH = (2, 11)
BUILDS = ("auto", "cpu", "cuda")
CPU_KERNELS = ("all", "baseline")
WALK = "csrc/cuda/walk.cpp"
# What takes minutes to compile: begun first, so that no core is left alone with one in the end.
LONGEST = (
    *(f"csrc/cuda/{name}.cu" for name in ("splat", "grad_warp", "sample", "derivative")),
    *(f"csrc/cpu/kernels_{name}.cpp" for name in ("avx512", "avx2", "baseline")),
    WALK,
    *(f"csrc/units/torch_{name}.cpp" for name in ("autograd", "ops")),
)

# One per generation of GPUs: a binary also runs on the later minor versions (8.0 on 8.6 and 8.9),
# and each entry adds to the build time. The newest one that nvcc knows is kept as PTX as well, for
# GPUs that are still to come.
DEFAULT_ARCHITECTURES = ("7.5", "8.0", "9.0", "10.0", "12.0")

# No -ffast-math (NaN and Inf have a meaning here) and no -march=native (the vector code chooses
# its instruction set at run time). Without -fopenmp, at::parallel_for is serial; Apple's clang
# does not have it. -g0, because Python's own -g makes a build of templates slow and large.
CXX_FLAGS = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS += ["-fvisibility=hidden", "-g0", "-Wall", "-Wextra"]
OPENMP_FLAGS = [] if sys.platform == "darwin" else ["-fopenmp"]
NVCC_FLAGS = ["-O3", "--expt-relaxed-constexpr"]


def stop(sentence):
    """End the build with one sentence and no traceback."""
    raise SystemExit(f"stn_cuda: {sentence}")


def requested_build(environ):
    """What STN_CUDA_BUILD asks for."""
    build = environ.get("STN_CUDA_BUILD") or "auto"
    if build not in BUILDS:
        stop(f"STN_CUDA_BUILD must be one of {', '.join(BUILDS)}, got '{build}'")
    return build


def requested_cpu(environ):
    """The CPU kernels that STN_CUDA_CPU asks for."""
    cpu = environ.get("STN_CUDA_CPU") or "all"
    if cpu not in CPU_KERNELS:
        stop(f"STN_CUDA_CPU must be one of {', '.join(CPU_KERNELS)}, got '{cpu}'")
    return cpu


def requested_walk(environ):
    """Whether STN_CUDA_WALK asks for the walk."""
    walk = environ.get("STN_CUDA_WALK") or "0"
    if walk not in ("0", "1"):
        stop(f"STN_CUDA_WALK must be 0 or 1, got '{walk}'")
    return walk == "1"


def import_torch():
    """The torch to build against."""
    try:
        import torch
    except ImportError as error:
        stop(
            f"building needs torch, which {sys.executable} cannot import ({error}): install "
            "torch first, then run `pip install --no-build-isolation .` (without that flag pip "
            "builds in an environment of its own, where there is no torch)"
        )
    check_torch_version(torch.__version__)
    return torch


def check_torch_version(version):
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        stop(f"torch must be {oldest} or later, got {version}: run `pip install 'torch>={oldest}'`")


def find_compiler(environ):
    """The C++ compiler: $CXX, else the first of the usual names on PATH."""
    names = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        if shutil.which(name.split()[0], path=environ.get("PATH")):
            return name
    stop(
        f"building needs a C++ compiler, looked for {', '.join(names)}: install one (Debian and "
        "Ubuntu: `apt install g++`, macOS: `xcode-select --install`) or set CXX"
    )


def check_python_headers(include):
    if not Path(include, "Python.h").is_file():
        stop(
            f"building needs Python's headers, but there is no {Path(include, 'Python.h')}: "
            "install them (Debian and Ubuntu: `apt install python3-dev`)"
        )


def find_nvcc(environ):
    """nvcc of $CUDA_HOME or $CUDA_PATH, else of PATH, else of the usual folder; None: none."""
    homes = [environ.get("CUDA_HOME"), environ.get("CUDA_PATH")]
    folders = [Path(home, "bin") for home in homes if home]
    search = [*folders, environ.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    found = shutil.which("nvcc", path=os.pathsep.join(map(str, search)))
    return Path(found) if found else None


def output_of(*command):
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


def nvcc_release(text):
    """CUDA version, such as "13.0", out of what `nvcc --version` says."""
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else stop(f"`nvcc --version` tells no CUDA version: {text!r}")


def toolkit_home(nvcc):
    """The folder of the CUDA toolkit of an nvcc, which may be a link or a wrapper script."""
    real = re.search(r"_HERE_=(.+)", output_of(nvcc, "--dryrun", "-x", "cu", "-c", os.devnull))
    programs = [nvcc, nvcc.resolve(), *([Path(real.group(1), "nvcc")] if real else [])]
    homes = [program.parent.parent for program in programs]
    return next((home for home in homes if (home / "include/cuda_runtime.h").exists()), homes[0])


def decide(build, torch_version, torch_cuda, nvcc, nvcc_cuda):
    """Whether to build the CUDA part, and why: (bool, reason).

    torch_cuda and nvcc_cuda are CUDA versions such as "13.0"; None: torch is no CUDA build, and
    there is no nvcc.
    """
    if build == "cpu":
        return False, "STN_CUDA_BUILD=cpu"
    if torch_cuda is None:
        reason = f"torch {torch_version} is a CPU build"
        if build == "cuda":
            stop(
                f"STN_CUDA_BUILD=cuda needs a CUDA build of torch, but {reason}: install one "
                "(https://pytorch.org/get-started) or set STN_CUDA_BUILD=cpu"
            )
        return False, reason
    if nvcc is None:
        reason = "no nvcc in CUDA_HOME or on PATH"
        if build == "cuda":
            stop(
                f"STN_CUDA_BUILD=cuda needs nvcc, but there is {reason}: install the CUDA "
                f"{torch_cuda} toolkit or set STN_CUDA_BUILD=cpu"
            )
        return False, f"torch {torch_version} has CUDA, but there is {reason}"
    if nvcc_cuda.split(".")[0] != torch_cuda.split(".")[0]:
        stop(
            f"torch {torch_version} needs nvcc of CUDA {torch_cuda.split('.')[0]}, but {nvcc} is "
            f"of CUDA {nvcc_cuda}: set CUDA_HOME to a CUDA {torch_cuda} toolkit, install a torch "
            f"for CUDA {nvcc_cuda}, or set STN_CUDA_BUILD=cpu"
        )
    return True, f"torch {torch_version}, nvcc {nvcc_cuda} at {nvcc}"


def default_architectures(nvcc_list):
    """The part of DEFAULT_ARCHITECTURES that is in what `nvcc --list-gpu-arch` prints."""
    known = nvcc_list.split()
    names = [a for a in DEFAULT_ARCHITECTURES if "compute_" + a.replace(".", "") in known]
    return ";".join(names) + "+PTX" if names else None


def built_architectures(flags):
    """["sm_90", "compute_90"] out of nvcc's -gencode flags, in the order of their numbers."""
    codes = {flag.split(",code=")[1] for flag in flags if ",code=" in flag}
    return sorted(codes, key=lambda code: (code.startswith("compute"), len(code), code))


def write_config(path, facts):
    """Write the facts of a build as a Python module, at once or not at all."""
    lines = ['"""Facts of the build, written by setup.py."""', ""]
    lines += [f"{name} = {value!r}" for name, value in facts.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write("\n".join(lines) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def sources(cuda, walk):
    patterns = ["csrc/units/*.cpp", "csrc/cpu/*.cpp"]  # units: of csrc/*.cpp
    patterns += ["csrc/cuda/*.cpp", "csrc/cuda/*.cu"] if cuda else []
    root = Path(__file__).resolve().parent
    files = {str(p.relative_to(root)) for pattern in patterns for p in root.glob(pattern)}
    files = files - {WALK} | ({WALK} if walk else set())
    return [name for name in LONGEST if name in files] + sorted(files - set(LONGEST))


def main():
    build, walk = requested_build(os.environ), requested_walk(os.environ)
    defines = ["-DSTN_BASELINE_ONLY"] if requested_cpu(os.environ) == "baseline" else []
    torch = import_torch()
    # One compiler for both steps: torch would compile with c++ and setuptools link with Python's.
    os.environ["CXX"] = compiler = find_compiler(os.environ)
    check_python_headers(sysconfig.get_path("include"))
    nvcc = find_nvcc(os.environ) if build != "cpu" and torch.version.cuda else None
    nvcc_cuda = nvcc_release(output_of(nvcc, "--version")) if nvcc else None
    cuda, reason = decide(build, torch.__version__, torch.version.cuda, nvcc, nvcc_cuda)
    if cuda:
        os.environ["CUDA_HOME"] = str(toolkit_home(nvcc))
        if not os.environ.get("TORCH_CUDA_ARCH_LIST") and torch.cuda.device_count() == 0:
            names = default_architectures(output_of(nvcc, "--list-gpu-arch"))
            os.environ["TORCH_CUDA_ARCH_LIST"] = names or stop(f"{nvcc} is too old")
    # ninja may stand beside a Python whose environment is not activated.
    os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")
    from torch.utils import cpp_extension  # reads CUDA_HOME when it is imported

    architectures = built_architectures(cpp_extension._get_cuda_arch_flags()) if cuda else []
    device = f"CPU and CUDA ({' '.join(architectures)})" if cuda else "CPU"

    class BuildExtension(cpp_extension.BuildExtension):
        def finalize_options(self):
            super().finalize_options()
            # A folder per torch, so that no object file of another torch is taken for up to date;
            # and a lasting one for editable installs too, so that they compile what changed.
            tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
            self.build_temp = os.path.join("build", f"temp-{tag}-torch-{torch.__version__}")

        def run(self):
            print(f"stn_cuda: building for {device} ({reason})", file=sys.stderr, flush=True)
            super().run()
            facts = {
                "VERSION": self.distribution.get_version(),
                "TORCH_VERSION": str(torch.__version__),
                "CUDA_VERSION": nvcc_cuda if cuda else None,
                "CUDA_ARCHITECTURES": architectures,
                "COMPILER": output_of(*compiler.split(), "--version").splitlines()[0],
            }
            module = Path(self.get_ext_fullpath("stn_cuda._C"))  # in the source tree if editable
            write_config(module.parent / "_build_config.py", facts)

    # As system headers, torch's own cause no warnings. (ccache does not know the two as one word.)
    system = [part for path in cpp_extension.include_paths() for part in ("-isystem", path)]
    extension = cpp_extension.CUDAExtension if cuda else cpp_extension.CppExtension
    setup(
        ext_modules=[
            extension(
                "stn_cuda._C",
                sources(cuda, walk),
                include_dirs=[str(Path(__file__).resolve().parent / "csrc")],
                extra_compile_args={
                    "cxx": CXX_FLAGS + OPENMP_FLAGS + defines + system,
                    "nvcc": NVCC_FLAGS,
                },
                extra_link_args=OPENMP_FLAGS,
            )
        ],
        cmdclass={"build_ext": BuildExtension},
    )


if __name__ == "__main__":
    main()
