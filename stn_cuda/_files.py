"""Writing a file so that a reader, or a run that is cut short, never sees half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; rename it to ``path`` on success.

    If the body raises, ``path`` keeps its former content and the temporary file is removed.
    """
    # Beside the target, because a rename is atomic only within one file system. The process id
    # keeps two runs apart; the file gets the ordinary permissions, unlike one from `tempfile`.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
