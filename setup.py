"""The one step of the installation that pyproject.toml cannot say: the kernels in C++, where there is a compiler.

Without one, or where it fails, the installation goes on and says so; the package then computes with PyTorch alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("tsuzuri") / "native"


class Kernels(build_ext):
    """Builds `libtsuzuri.so` where the package lies: in the tree for an editable installation, else in the wheel."""

    def run(self) -> None:
        place = Path(__file__).parent / NATIVE
        spec = importlib.util.spec_from_file_location("build", place / "build.py")
        assert spec and spec.loader
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        out = (place if self.inplace else Path(self.build_lib) / NATIVE) / module.LIBRARY.name
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            module.build(out)
        except module.BuildError as error:
            self.warn(f"the native kernels were not built, PyTorch computes instead: {error}")

    def get_outputs(self) -> list[str]:
        return []


setup(ext_modules=[Extension("tsuzuri.native._kernels", sources=[])], cmdclass={"build_ext": Kernels})
