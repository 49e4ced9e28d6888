"""A copy of the repository in which pages may be followed."""

import shutil
import subprocess
from pathlib import Path


def copy_of(repository: Path, place: Path) -> Path:
    """The files that git tracks, and the new ones that it does not ignore."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=repository, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (repository / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, place / name)
    return place
