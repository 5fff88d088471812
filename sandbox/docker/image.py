"""Making the image that the Docker engine runs, from this machine's own files: ``keyeloop sandbox build-image``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.docker.daemon import IMAGE, connect, line_of
from keyeloop.sandbox.docker.rootfs import PYTHON, SITE, survey, write_rootfs

PACKAGES: Final = ("numpy", "opencv-python-headless", "pillow", "matplotlib")
IMPORT_S: Final = 600.0


@dataclass(frozen=True)
class Image:
    """An image that the daemon now has."""

    name: str
    id: str
    size_bytes: int
    versions: dict[str, str]


def build_image(name: str = IMAGE, python: Path | None = None, packages: Sequence[str] = PACKAGES) -> Image:
    """Import an image of ``python`` (None: the one that runs this) with ``packages`` and what they need.

    Raises InputError where a package is missing, SandboxUnavailable without a daemon, SandboxError where it refuses.
    """
    tree = survey(python, packages)
    api = connect().api
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    changes = [
        f"ENV PATH={PYTHON}/bin:/usr/local/bin:/usr/bin:/bin",
        f"ENV PYTHONPATH={SITE}",
        f"ENV LD_LIBRARY_PATH={PYTHON}/lib",
        "CMD python3",
    ]
    before = api.images(f"{repository}:{tag}", quiet=True)
    with tempfile.TemporaryDirectory(prefix="keyeloop-image-") as folder:
        archive = Path(folder) / "rootfs.tar"
        write_rootfs(tree, archive)
        waited_s, api.timeout = api.timeout, IMPORT_S
        try:
            api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes)
            facts = api.inspect_image(f"{repository}:{tag}")
        except Exception as error:
            raise SandboxError(f"the Docker daemon did not take the image: {line_of(error)}") from error
        finally:
            api.timeout = waited_s
    for replaced in set(before) - {facts["Id"]}:
        with contextlib.suppress(Exception):  # it has another name, or a container still runs it
            api.remove_image(replaced)
    return Image(f"{repository}:{tag}", str(facts["Id"]), int(facts["Size"]), tree.versions)
