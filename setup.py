"""What pyproject.toml cannot say yet: the compiled extension, and that its wheel fits every Python from 3.11 on."""

from setuptools import setup

setup(
    cffi_modules=["src/layerstore/kernel/_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
