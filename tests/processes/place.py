"""Programs as users start them: processes of their own that have imported nothing and inherit no settings."""

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.processes.pages import ROOT

STAND_INS = Path(__file__).parent / "bin"
NEW_PHOTO = "0002.jpg"
"""Not among the images of README's model."""
SETTINGS = ("LD_", "PYTHON", "PIXCLI_", "OMP_", "PHOTOS")


def clean_environment() -> dict[str, str]:
    """The environment without what changes how programs start; with `pixcli` and `colmap` on the path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    places = [sysconfig.get_path("scripts"), str(STAND_INS), inherited.get("PATH", os.defpath)]
    return {**inherited, "PATH": os.pathsep.join(places)}


@dataclass(frozen=True)
class Place:
    """A folder to start programs in."""

    path: Path

    def run(self, *command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a program, which must end with this code and leave no warning or stack trace."""
        run = subprocess.run(
            [str(word) for word in command],
            cwd=self.path,
            env=clean_environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert run.returncode == code, run.stdout + run.stderr
        assert "Traceback" not in run.stderr
        assert "Warning" not in run.stderr
        return run

    def pixcli(self, *arguments: object) -> str:
        """Runs the installed program and returns what it prints."""
        return self.run("pixcli", *arguments).stdout

    def shell(self, commands: str) -> str:
        """Runs lines of a page, the first failure ends them, and returns what they print."""
        return self.run("bash", "-e", "-c", commands).stdout

    def python(self, code: str) -> str:
        """Runs code in a new interpreter and returns what it prints."""
        return self.run(sys.executable, "-P", "-c", code).stdout

    def script(self, name: str, *arguments: object) -> str:
        """Runs a script of scripts/ and returns what it prints."""
        return self.run(sys.executable, ROOT / "scripts" / name, *arguments).stdout


def add_new_photo(folder: Path, photos: Path) -> None:
    shutil.copy(photos / "images" / NEW_PHOTO, folder / "images")
    (folder / "new.txt").write_text(f"{NEW_PHOTO}\n", encoding="utf-8")
