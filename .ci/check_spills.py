"""Tells of the registers of every CUDA kernel, and fails where one spills them to memory.

    NVCC_APPEND_FLAGS=-Xptxas=-v pip install -v --no-build-isolation . > LOG 2>&1
    python .ci/check_spills.py LOG csrc sm_80 sm_90

Every kernel of the sources must be in the log for every architecture: a log in which ptxas says
nothing proves nothing.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

# What ptxas -v says of a kernel, and after it of the functions that it calls. Whoever collects the
# log may put something before each line, or other lines between them.
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
FUNCTION = re.compile(r"Function properties for (\S+)")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass
class Kernel:
    """One instantiation for one architecture. Numbers are the largest of it and all it calls."""

    symbol: str
    arch: str
    registers: int = 0
    stack: int = 0
    stores: int = 0
    loads: int = 0
    own: bool = False  # whether ptxas has told of the kernel itself

    @property
    def complete(self):
        return self.own and self.registers > 0

    @property
    def spills(self):
        return self.stores + self.loads > 0


def parse(log):
    """The kernels in a log, and the numbers of its lines that tell of no known function."""
    kernels, strays = {}, []
    kernel = function = None
    for number, line in enumerate(log.splitlines(), 1):
        if entry := ENTRY.search(line):
            # A kernel of two source files is in the log twice.
            kernel = kernels.setdefault(entry.groups(), Kernel(*entry.groups()))
            function = None
        elif named := FUNCTION.search(line):
            function = named[1]
        elif memory := MEMORY.search(line):
            if kernel is None or function is None:
                strays.append(number)
                continue
            stack, stores, loads = map(int, memory.groups())
            kernel.stack = max(kernel.stack, stack)
            kernel.stores = max(kernel.stores, stores)
            kernel.loads = max(kernel.loads, loads)
            kernel.own |= function == kernel.symbol
            function = None
        elif kernel and (used := REGISTERS.search(line)):
            kernel.registers = max(kernel.registers, int(used[1]))
    return list(kernels.values()), strays


def kernel_names(source):
    """The names of the kernels that a source text defines: structs, by csrc/cuda/stream.h."""
    source = re.sub(r"//[^\n]*|/\*(?s:.*?)\*/", "", source)
    return re.findall(r"\bstruct\s+(\w+Kernel)\s*\{", source)


def defined_kernels(folder):
    files = [p for p in Path(folder).rglob("*") if p.suffix in (".cu", ".cuh", ".h")]
    return {name for file in files for name in kernel_names(file.read_text())}


def family_of(symbol, names):
    """The kernel that a mangled name is an instantiation of; in it, names have their length."""
    found = [name for name in names if f"{len(name)}{name}" in symbol]
    return max(found, key=len, default=symbol)


def demangled(symbols):
    """Mangled names as C++ has them, without namespaces and arguments, if there is c++filt."""
    symbols = list(symbols)
    if not symbols or not shutil.which("c++filt"):
        return symbols
    text = "\n".join(symbols)
    names = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True)
    short = re.sub(r"\(anonymous namespace\)::|\b\w+::|\bvoid (?=\w)", "", names.stdout)
    return [re.sub(r"\([^()]*\)$", "", name) for name in short.splitlines()]


def problems_of(kernels, strays, names, architectures):
    """A sentence for each thing that is wrong."""
    for number in strays:
        yield f"line {number} of the log tells of no known function"
    if not names:
        yield "there are no kernels in the sources"
    symbols = {arch: {k.symbol for k in kernels if k.arch == arch} for arch in architectures}
    for arch in architectures:
        for name in sorted(names - {family_of(symbol, names) for symbol in symbols[arch]}):
            yield f"{name} for {arch} is not in the log"
    if len({frozenset(group) for group in symbols.values()}) != 1:
        counts = ", ".join(f"{len(group)} for {arch}" for arch, group in symbols.items())
        yield f"the architectures do not have the same kernels: {counts}"
    bad = [k for k in kernels if k.spills or not k.complete]
    for kernel, shown in zip(bad, demangled(k.symbol for k in bad), strict=True):
        if kernel.complete:
            yield (
                f"{shown} for {kernel.arch} spills: {kernel.stores} bytes stored and "
                f"{kernel.loads} loaded, with {kernel.registers} registers"
            )
        else:
            yield f"the log lacks the resources of {shown} for {kernel.arch}"


def table(kernels, names):
    """A line for each kernel of the sources and each architecture."""

    def key(kernel):
        return family_of(kernel.symbol, names), kernel.arch

    row = "{:27}{:>6}{:>16}{:>16}{:>12}{:>15}".format
    yield row("kernel", "arch", "instantiations", "most registers", "that spill", "largest stack")
    for (name, arch), members in groupby(sorted(kernels, key=key), key):
        group = list(members)
        registers = max(k.registers for k in group)
        spilling = sum(k.spills for k in group)
        yield row(name, arch, len(group), registers, spilling, max(k.stack for k in group))


def main(log, folder, *architectures):
    kernels, strays = parse(Path(log).read_text(errors="replace"))
    names = defined_kernels(folder)
    print("\n".join(table(kernels, names)))
    problems = list(problems_of(kernels, strays, names, architectures))
    for problem in problems:
        print("FAILED:", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
