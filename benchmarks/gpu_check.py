"""`python -m benchmarks.gpu_check`: build, tests, sanitizer and benchmark on a GPU, and a report.

What `make gpu-check` calls. Installs nothing: torch is there, and for the steps nvcc and a C++
compiler, the tests' libraries, compute-sanitizer. What is missing fails its own step alone.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import torch

from . import environment, report

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
GROUPS = {
    "build": ("build",),
    "tests": ("cuda-tests", "other-tests"),
    "sanitizer": SANITIZERS,
    "benchmark": ("benchmark",),
}
STEPS = [name for names in GROUPS.values() for name in names]

# Seconds that an interrupted step has to write down what it has.
GRACE = 30
# Lines of a failed step's log that the report repeats.
TAIL = 40


@dataclass(frozen=True)
class Step:
    """A command, what it is given besides this environment, and the files that it writes.

    junit    the one of them that tells of tests, of which one at least must not be skipped
    missing  why it cannot be run; empty if it can
    """

    name: str
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    junit: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a step; seconds is None if it was not run."""

    name: str
    result: str
    failed: bool
    seconds: float | None = None


def find_sanitizer(environ: dict[str, str]) -> str | None:
    """compute-sanitizer of PATH or of a CUDA toolkit."""
    homes = [environ.get("CUDA_HOME"), environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [environ.get("PATH", os.defpath), *(os.path.join(h, "bin") for h in homes if h)]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def steps(names: Sequence[str], folder: Path, sanitizer: str | None, bench: str) -> list[Step]:
    """The steps of these names, in their order, with what they write in `folder`."""
    python = sys.executable
    made = [
        # For the GPUs that are present, unless TORCH_CUDA_ARCH_LIST says otherwise: see setup.py.
        Step(
            "build",
            (python, "setup.py", "build_ext", "--inplace"),
            variables={"STN_CUDA_BUILD": "cuda"},
        )
    ]
    for name, marker in (("cuda-tests", "cuda"), ("other-tests", "not cuda")):
        junit = f"{name}.xml"
        command = (python, "-m", "pytest", "-m", marker, f"--junitxml={folder / junit}")
        made.append(Step(name, command, files=(junit,), junit=junit))
    for tool in SANITIZERS:
        watch = (sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "1")
        made.append(
            Step(
                tool,
                (*watch, "--target-processes", "all", python, "tests/sanitizer_subset.py"),
                # An allocation of its own for each tensor: what is beyond it belongs to nobody.
                variables={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
                missing="" if sanitizer else "compute-sanitizer is not on PATH or in CUDA_HOME",
            )
        )
    command = (python, "-m", "benchmarks", "--device", "cuda", *shlex.split(bench))
    files = ("results.json", "results.md", "results.png")
    made.append(Step("benchmark", (*command, "--out", str(folder)), files=files))
    return [step for step in made if step.name in names]


def run(step: Step, folder: Path, limit: float | None) -> Outcome:
    """Run a step, its output in `folder`/NAME.log; after `limit` seconds it is interrupted."""
    log = folder / f"{step.name}.log"
    for old in (log, *(folder / name for name in step.files)):
        old.unlink(missing_ok=True)
    if step.missing:
        return Outcome(step.name, f"not run: {step.missing}", failed=True)
    begin = time.monotonic()
    variables = os.environ | {"PYTHONUNBUFFERED": "1"} | step.variables
    with log.open("wb") as stream:
        stream.write(f"$ {shlex.join(step.command)}\n".encode())
        stream.flush()
        try:
            # A session of its own, so that what it starts ends with it.
            process = subprocess.Popen(
                step.command,
                cwd=environment.ROOT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_listen,
            )
        except OSError as error:
            return Outcome(step.name, f"not run: {error}", failed=True)
        result = ""
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = _stop(process)
            result = f"interrupted after {limit:.0f} s"
        except BaseException:
            _stop(process)
            raise
    result = result or (f"exit status {status}" if status else "passed")
    # Where stn_cuda was built without CUDA, its tests are skipped, one and all.
    if result == "passed" and step.junit and not _tests_run(folder / step.junit):
        result = "no test was run"
    return Outcome(step.name, result, result != "passed", time.monotonic() - begin)


def _tests_run(junit: Path) -> int:
    if not junit.is_file():
        return 0
    suites = ElementTree.parse(junit).iter("testsuite")
    return sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in suites)


def _listen() -> None:
    """Before a step's program starts: it can be interrupted, even where this one cannot.

    A shell starts its background jobs deaf to SIGINT, and their children inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(process: subprocess.Popen) -> int:
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


# --- the report -------------------------------------------------------------------------------


def facts() -> dict[str, str]:
    """The machine and the versions, for the report's head."""
    gpu, commit = environment.gpu(), environment.commit()
    gib = gpu["memory_bytes"] / 2**30
    changes = " + changes" if commit["dirty"] else ""
    return {
        "GPU": f"{torch.cuda.get_device_name(0)}, sm_{gpu['capability'].replace('.', '')}, "
        f"{gpu['multiprocessors']} multiprocessors, {gib:.0f} GiB",
        "driver": str(gpu["driver"]),
        "processor": f"{environment.processor()}, {environment.cores()} cores",
        "torch": f"{torch.__version__}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}",
        "Python": sys.version.partition(" ")[0],
        "commit": f"{commit['commit'] or 'none'}{changes}",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def markdown(about: dict[str, str], outcomes: Sequence[Outcome], left: int, folder: Path) -> str:
    """The report: the machine, a line per step, the ends of what failed, and the benchmark."""
    failed = [one for one in outcomes if one.failed]
    verdict = f"{len(failed)} of {len(outcomes)} steps failed" if failed else "passed"
    lines = [f"# gpu-check: {verdict}" + (f", {left} still to run" if left else ""), ""]
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in about.items()), ""]
    lines += ["| step | result | seconds | last line |", "|---|---|---:|---|"]
    logs = {one.name: _log(folder, one.name) for one in outcomes}
    for one in outcomes:
        seconds = "" if one.seconds is None else f"{one.seconds:.0f}"
        last = next((line for line in reversed(logs[one.name]) if line.strip()), "")
        last = last.strip(" =").replace("|", "\\|")
        lines.append(f"| {one.name} | {one.result} | {seconds} | {last} |")
    for one in failed:
        if logs[one.name]:
            tail = logs[one.name][-TAIL:]
            lines += ["", f"## The end of {one.name}.log", "", "~~~", *tail, "~~~"]
    results = folder / "results.md"
    if "benchmark" in logs and results.is_file():
        lines += ["", "## Benchmark", "", results.read_text().rstrip()]
    return "\n".join(lines) + "\n"


def _log(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.log"
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


# --- the command ------------------------------------------------------------------------------


def expand(words: Sequence[str]) -> Iterator[str]:
    """Names of steps for names of steps and of groups; ValueError for any other."""
    for word in words:
        if word not in GROUPS and word not in STEPS:
            known = ", ".join(dict.fromkeys([*GROUPS, *STEPS]))
            raise ValueError(f"--steps must be of {known}, got {word!r}")
        yield from GROUPS.get(word, (word,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps. Returns the exit status: 0; 1 if one failed; 2 without a GPU."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        names = list(expand(options.steps.split()))
    except ValueError as error:
        parser.error(str(error))
    if not torch.cuda.is_available():
        print("gpu-check needs a GPU: torch.cuda.is_available() is False", file=sys.stderr)
        return 2
    folder = options.report.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    todo = steps(names, folder, find_sanitizer(os.environ), options.bench_args)
    about, outcomes = facts(), []
    for step in todo:
        print(f"{step.name}: {shlex.join(step.command)}", flush=True)
        one = run(step, folder, options.step_limit)
        if one.seconds is None and options.missing_tools_ok:
            one = replace(one, failed=False)
        outcomes.append(one)
        took = "" if one.seconds is None else f" after {one.seconds:.0f} s"
        print(f"{step.name}: {one.result}{took}", flush=True)
        # After every step, so that whatever ends this one leaves a report.
        text = markdown(about, outcomes, len(todo) - len(outcomes), folder)
        report.write_atomically(folder / "report.md", text)
    print(f"written to {options.report}: report.md")
    return 1 if any(one.failed for one in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description="Build, test and time the CUDA kernels on this machine, and write a report.",
    )
    parser.add_argument("--steps", default=" ".join(GROUPS), help="which; default: %(default)s")
    parser.add_argument(
        "--report", type=Path, default=Path("out/gpu-check"), metavar="DIR", help="where it goes"
    )
    parser.add_argument(
        "--bench-args", default="--quick --compile", help="the benchmark's; default: '%(default)s'"
    )
    parser.add_argument("--step-limit", type=float, metavar="S", help="seconds of a step at most")
    parser.add_argument(
        "--missing-tools-ok",
        action="store_true",
        help="a step that was not run, because its tool is missing, is no failure",
    )
    return parser


if __name__ == "__main__":
    environment.prefer_installed()
    sys.exit(main())
