"""What pyproject.toml cannot say: a build begins with an empty `build/lib`.

setuptools packs all that lies there, so a module that the sources no longer have stayed in every
later wheel of the same folder.
"""

from __future__ import annotations

import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class FreshBuild(build_py):  # type: ignore[misc]  # setuptools has no types
    """Copies the sources into an empty folder."""

    def run(self) -> None:
        """Run the command."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": FreshBuild})
