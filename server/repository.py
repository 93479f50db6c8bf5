"""Bundles on disk: `<repository>/<model>/<version>/`. Finds and reads; loads nothing.

Rules
-----
* Names that start with a dot are not looked at.
* The newest version is the last in natural order ("v10" after "v9"); a suffix sorts after what it
  is a suffix of ("2.0-rc1" after "2.0"), so a candidate is the newest unless a version is named.
* A bundle is what its manifest says that it is: a directory under another name is refused.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from server.bundle import Bundle, read_bundle
from server.bundle.manifest import MANIFEST, NAME_PATTERN
from server.errors import BundleError, NotFoundError, StartError


def natural_key(text: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key in which runs of digits compare as numbers; the text breaks ties."""
    parts = re.split(r"([0-9]+)", text)  # every second part is digits
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], text


class Repository:
    """A directory of bundles.

    Parameters
    ----------
    path
        The repository.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def models(self) -> list[str]:
        """Return the names in the repository.

        Raises
        ------
        StartError
            The repository is missing or cannot be read.
        """
        return sorted(_directories(self.path, "repository"))

    def versions(self, model: str) -> list[str]:
        """Return a model's versions, oldest first in natural order.

        Raises
        ------
        NotFoundError
            The model is not in the repository.
        StartError
            Its directory cannot be read.
        """
        return sorted(_directories(self.path / model, "model"), key=natural_key)

    def find(self, model: str, version: str = "") -> tuple[str, Path]:
        """Return a version's name and directory; an empty version is the newest.

        Raises
        ------
        NotFoundError
            There is no such model or version; the message names those that there are.
        StartError
            Such a name cannot be.
        """
        for what, name in (("model", model), ("version", version or "1")):
            if not re.match(NAME_PATTERN, name):
                raise StartError(f"{name!r} is not a {what}'s name: it has to match {NAME_PATTERN}")
        versions = self.versions(model)
        if not versions or (version and version not in versions):
            wanted = f"no version {version}" if version else "no versions"
            known = f"; there is {', '.join(versions)}" if versions else ""
            raise NotFoundError(f"{self.path / model}: {wanted} of this model{known}")
        version = version or versions[-1]
        return version, self.path / model / version

    def read(self, model: str, version: str) -> Bundle:
        """Return a verified bundle.

        Raises
        ------
        StartError
            It is not there.
        BundleError
            It is damaged, or another model's or version's.
        """
        version, path = self.find(model, version)
        bundle = read_bundle(path)
        manifest = bundle.manifest
        if (manifest.name, manifest.version) != (model, version):
            raise BundleError(
                f"{path}: the manifest says {manifest.name} {manifest.version}; rename the "
                "directories, or export again"
            )
        return bundle

    def digest(self, model: str, version: str) -> str:
        """Return the SHA-256 of a version's manifest, hex: what identifies its content.

        Raises
        ------
        StartError
            It is not there.
        BundleError
            It has no readable manifest.
        """
        version, path = self.find(model, version)
        try:
            return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"{path / MANIFEST}: cannot be read: {error.strerror}") from None


def _directories(path: Path, what: str) -> list[str]:
    try:
        return [
            entry.name
            for entry in path.iterdir()
            if re.match(NAME_PATTERN, entry.name) and entry.is_dir()
        ]
    except FileNotFoundError:
        kind = NotFoundError if what == "model" else StartError
        raise kind(f"{what} {path}: no such directory") from None
    except OSError as error:
        raise StartError(f"{what} {path}: cannot be read: {error.strerror}") from None
