"""Builds the C++ part, csrc/ -> megatron_iberis._C; everything else is in pyproject.toml.

Needs a C++17 compiler and pybind11 (fetched for the build by pip); torch is not needed to build.
"""

from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

extension = Pybind11Extension(
    "megatron_iberis._C",
    sorted(glob("csrc/**/*.cpp", recursive=True)),
    include_dirs=["csrc"],
    depends=sorted(glob("csrc/**/*.h", recursive=True)),
    cxx_std=17,
    extra_compile_args=["-O3", "-Wall", "-Wextra", "-pthread"],
)

setup(ext_modules=[extension], cmdclass={"build_ext": build_ext})
