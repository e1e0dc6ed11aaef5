"""The folder is the registry: a package and a name in, the module of that file out.

An open folder is a package in which one new file is one new thing. No decorator, no central list;
a module is imported only when asked for, and a wrong name is answered with the right ones.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from types import ModuleType

from tsuzuri.errors import ConfigError, Words


def names(package: str) -> list[str]:
    """The things in an open folder, sorted; nothing is imported but the folder itself."""
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def find(package: str, name: str) -> ModuleType:
    """The module `name` of an open folder. Dashes may stand for underscores. Raises ConfigError with the right names."""
    file = name.replace("-", "_")
    place = f"{package}.{file}"
    if file.isidentifier() and not file.startswith("_") and place in sys.modules:  # the folder was looked through when it was imported
        return importlib.import_module(place)
    known = names(package)
    if file not in known:
        folder = package.rpartition(".")[2]
        raise ConfigError(
            Words(f"{folder} の「{name}」を使おうとしました。", f"Asked for '{name}' from {folder}."),
            found=Words(f"あるのは {'、'.join(known)} です。", f"There is {', '.join(known)}."),
            todo=suggestion(name, known),
        )
    return importlib.import_module(place)


ONE_OF = Words("上のどれかを指定してください。", "Name one of these.")


def suggestion(name: str, known: list[str], otherwise: Words = ONE_OF) -> Words:
    """'did you mean …' over the known names, or else what to do: where all are shown, to choose one of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return Words(f"「{'」「'.join(near)}」のことではありませんか。", f"Did you mean {' or '.join(near)}?")
    return otherwise
