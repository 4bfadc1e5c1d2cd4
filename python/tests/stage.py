"""Lays the package out as pip would, around a native half that cargo built: stage.py LIBRARY FOLDER."""

import pathlib
import shutil
import sys
import tomllib

SOURCE = pathlib.Path(__file__).resolve().parent.parent


def stage(library, folder):
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCE / "bulla", folder / "bulla", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy2(library, folder / "bulla" / "_bulla.abi3.so")
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    info = folder / "bulla-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bulla\nVersion: 0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]"] + [f"{name} = {where}" for name, where in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    stage(*sys.argv[1:])
