"""What test_distributed.py has two processes do: `torchrun ... distributed_worker.py TOPIC`.

Every check of the topic runs in both. Into the working directory goes report.json, an object: for
every check "", or what failed where.
"""

import json
import os
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import distributed_tensors  # noqa: F401  (adds its checks)
import torch.distributed as dist
from distributed_models import CHECKS, one_fails

REPORT = "report.json"


def main(topic):
    if topic == "one fails":
        return one_fails()
    warnings.simplefilter("error")
    for noise in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("default", noise)
    # A process that fails leaves the other waiting: not for half an hour.
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    failures = {}
    for name, (of, function) in CHECKS.items():
        if of == topic:
            try:
                function()
                failures[name] = ""
            except Exception:
                failures[name] = f"process {dist.get_rank()}: {traceback.format_exc()}"
                # At once, too: what failed in one alone may leave the others waiting for it.
                print(failures[name], file=sys.stderr, flush=True)
    everywhere = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, failures)
    if dist.get_rank() == 0:
        merged = {name: "\n".join(filter(None, (f[name] for f in everywhere))) for name in failures}
        Path(REPORT).write_text(json.dumps(merged))
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush(), sys.stderr.flush()
    # Not by the interpreter's end, in which gloo's threads, which FSDP and meshes keep alive, can
    # abort the process (pytorch #179291): one launch in some sixty ended with SIGABRT.
    os._exit(status)
