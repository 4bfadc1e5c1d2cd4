"""The type stubs say what there is."""

import ast
import pathlib

import bulla
import bulla._bulla as native


def test_the_stubs_are_complete():
    tree = ast.parse(pathlib.Path(bulla.__file__).with_name("_bulla.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    there = {name for name in dir(native) if isinstance(getattr(native, name), type)}
    assert set(classes) == there == set(bulla.__all__) - {"__version__"}
    for name, node in classes.items():
        if issubclass(getattr(native, name), Exception):
            continue
        said = {item.name for item in node.body if isinstance(item, ast.FunctionDef)} - {"__init__"}
        has = {item for item in vars(getattr(native, name)) if not item.startswith("_")}
        assert said == has, name
