"""Imports of packages that an extra of retinart installs."""

from __future__ import annotations

import importlib
from typing import Any

from retinart.engine.errors import MissingDependency


def import_package(module: str, *, package: str, extra: str, purpose: str, fix: str) -> Any:
    """A module of such a package.

    Args:
        purpose: what needs it, as the beginning of a sentence.
        fix: what to do where the package is installed, and one of its libraries is not.

    Raises:
        MissingDependency: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependency.package(package, extra, purpose) from error
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"{package} is installed and cannot be loaded", why=str(error), fix=fix
        ) from error
