"""Doing something once a module is imported, whoever imports it, and nothing until then."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


class _Watch(MetaPathFinder):
    """Finds ``name`` as the other finders do, and calls ``then`` when it has run."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then

    def find_spec(self, name, path, target=None) -> ModuleSpec | None:
        if name != self.name:
            return None
        specs = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module) -> None:
            run(module)
            # Not in find_spec: whoever asks whether there is such a module does not import it.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self.then()

        spec.loader.exec_module = exec_module
        return spec


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Call ``then()`` once the module ``name`` is imported: now if it is, else when it will be.

    Args:
        name (str): the module's full name.
        then (callable): what it raises, the import raises.

    Example::

        when_imported("torch.distributed.tensor", register)
    """
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Watch(name, then))
