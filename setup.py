"""Maps the root folders to the ``keyeloop`` namespace: by the links in ``src`` or, where those are lost, directly."""

from pathlib import Path

from setuptools import find_packages, setup

NAME, FOLDERS = "keyeloop", ("agent", "runtime", "tools", "sandbox", "model_backend")
packages = [NAME]
for folder in FOLDERS:
    packages += [f"{NAME}.{folder}", *(f"{NAME}.{folder}.{sub}" for sub in find_packages(folder))]
linked = all((Path("src") / NAME / folder).is_dir() for folder in FOLDERS)
direct = {NAME: f"src/{NAME}", **{f"{NAME}.{folder}": folder for folder in FOLDERS}}
setup(packages=packages, package_dir={"": "src"} if linked else direct)
