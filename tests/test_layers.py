"""What may import what: a module imports only from layers below it, plus the few arrows written down here."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "copgen"
PACKAGES = ("copgen", "copgen.reading")          # from which modules are imported by name
LAYERS = [
    {"quality"},
    {"scaling", "thumbnails", "diffusion", "config", "files", "engines", "sun", "memory"},
    {"modalities", "geoparquet", "inference"},
    {"scene", "codec", "backbone", "shards", "scores"},
    {"store", "codecs", "published", "model", "call", "synthetic", "reading", "majortom", "writing", "pictures", "drawing", "sheet"},
    {"training", "job", "download", "loop"},
    {"bulk"},
    {"latents"},
    {"evaluation"},
    {"figures"},
    {"report"},
    {"console"},
    {"commands"},
    {"cli"},
]
ARROWS = {                                       # within a layer, and one upwards: Scene.save
    ("scene", "writing"),
    ("published", "store"), ("codecs", "store"), ("model", "codecs"), ("model", "store"), ("model", "published"), ("model", "call"),
    ("majortom", "reading"), ("pictures", "drawing"),
    ("sheet", "pictures"), ("sheet", "drawing"), ("synthetic", "majortom"), ("synthetic", "writing"),
}
READING = [                                      # inside a package, strictly: no arrows
    {"pictures", "acquired", "units"},
    {"rasters"},
    {"squares", "bandfiles"},
    {"resampling"},
    {"drawn"},
    {"scenes"},
]
PUBLISHED = [{"released", "diffusers"}, {"networks"}, {"conversion"}, {"hub"}]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def modules():
    """Every module and package of copgen with the files it consists of."""
    for path in sorted(SOURCE.iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            yield path.stem, [path]
        elif (path / "__init__.py").is_file():
            yield path.name, sorted(path.rglob("*.py"))


def imported(path):
    """The copgen modules a file imports, anywhere in it, as the parts of their names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}, line {node.lineno}: a relative import hides what it points to"
            names = [f"{node.module}.{alias.name}" if node.module in PACKAGES else node.module for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.startswith("copgen.") and not name.startswith("copgen.__"))


def test_every_module_has_a_layer():
    assert {name for name, _ in modules()} == set(LAYER)


def test_imports_point_downwards():
    upward = [f"{name} imports {other}" for name, files in modules() for file in files for other, *_ in imported(file)
              if other != name and LAYER[other] >= LAYER[name] and (name, other) not in ARROWS]
    assert not upward


def test_no_arrow_is_left_over():
    used = {(name, other) for name, files in modules() for file in files for other, *_ in imported(file)}
    assert used >= ARROWS


@pytest.mark.parametrize(("package", "layers"), [("reading", READING), ("published", PUBLISHED)])
def test_a_package_points_downwards_inside(package, layers):
    layer = {name: number for number, names in enumerate(layers) for name in names}
    files = [file for file in sorted((SOURCE / package).glob("*.py")) if file.stem != "__init__"]
    assert {file.stem for file in files} == set(layer)
    inside = [(file.stem, parts[1]) for file in files for parts in imported(file) if parts[0] == package and len(parts) > 1]
    assert inside and not [f"{name} imports {other}" for name, other in inside if layer[other] >= layer[name]]
