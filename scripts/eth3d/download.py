"""Gets scenes of the ETH3D benchmark: undistorted images with their calibration, and the laser scans.

usage: download.py [--data FOLDER] [--scenes facade ...]

Takes up what was interrupted, checks sizes against the server's, and unpacks by py7zr or the 7z program.
Without a network, put the archives that this names into FOLDER by hand and run it again.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from common import SCENES

SERVER = "https://www.eth3d.net/data"
PARTS = ("dslr_undistorted", "dslr_scan_eval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("datasets/eth3d"))
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--server", default=SERVER, help="another place with the same archives")
    args = parser.parse_args()
    args.data.mkdir(parents=True, exist_ok=True)
    for scene in args.scenes:
        for part in PARTS:
            archive = args.data / f"{scene}_{part}.7z"
            done = args.data / scene / f".{part}"
            if done.is_file():
                print(f"{scene}: {part} is there")
                continue
            try:
                fetch(f"{args.server}/{archive.name}", archive)
            except OSError as error:
                if not archive.is_file():
                    sys.exit(
                        f"download.py: {args.server}/{archive.name} cannot be had ({error}): get it in "
                        f"another way, put it into {args.data} and run this again"
                    )
                print(f"{archive.name}: not checked against the server ({error})")
            unpack(archive, args.data)
            done.parent.mkdir(exist_ok=True)
            done.touch()
            archive.unlink()


def fetch(url: str, path: Path) -> None:
    """Downloads a file, from where an earlier download stopped."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as reply:
        size = int(reply.headers["Content-Length"])
    if path.is_file() and path.stat().st_size == size:
        return
    partial = path.with_name(f"{path.name}.partial")
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if 0 < start < size else {})
    with urllib.request.urlopen(request, timeout=60) as reply:
        resumed = reply.status == 206  # else the server sends all of it again
        with partial.open("ab" if resumed else "wb") as file:
            print(f"{path.name}: {size / 1e6:.0f} MB", "from where it stopped" if resumed else "", flush=True)
            shutil.copyfileobj(reply, file, 1 << 20)
    if partial.stat().st_size != size:
        raise OSError(f"{partial.stat().st_size} of {size} bytes came; run this again")
    partial.replace(path)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a 7z archive."""
    if importlib.util.find_spec("py7zr") is not None:
        import py7zr

        with py7zr.SevenZipFile(archive) as file:
            file.extractall(folder)
        return
    program = shutil.which("7z") or shutil.which("7za") or shutil.which("7zr")
    if program is None:
        sys.exit(f"download.py: to unpack {archive} it takes py7zr (pip install py7zr) or the program 7z")
    subprocess.run([program, "x", "-y", f"-o{folder}", str(archive)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
