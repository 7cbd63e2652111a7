"""The walls between the packages, held by reading every import, lazy ones included.

And the wall about the table of organs: what it holds stands nowhere else.
"""

import ast
import re
from pathlib import Path

import pytest

import serving
import trainer
from segthor import organ_table

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("segthor", "beam_jobs", "trainer", "serving")
LONGEST = 300  # lines of a module
KERAS = ("keras", "tf_keras", "tensorflow.keras", "segmentation_models")

# What only some modules may import. A pattern is a module, or all modules of a package: `name.*`.
ONLY_IN = {
    "apache_beam": ("beam_jobs.*", "serving.prediction.distributed", "segthor.runners"),
    "nibabel": ("segthor.nifti",),
    "pydicom": ("segthor.dicom.*",),
    "highdicom": ("segthor.dicom.*",),
    "pynetdicom": ("serving.node.*",),
    "segmentation_models": ("trainer.model",),
    "sklearn": ("serving.review.fit",),
    "openvino": ("serving.prediction.engine",),
}
# What some modules may not import. segthor.errors starts the entries, so it parses their flags;
# segthor.flags_of makes them.
NEVER_IN = [
    ("segthor.*", ("beam_jobs", "trainer", "serving")),
    ("beam_jobs.*", ("trainer", "serving")),
    ("trainer.*", ("beam_jobs", "serving")),
]
# Of the trainer, serving imports these alone, and only where a run's network is needed as it was
# trained; the package itself because it says which Keras tensorflow is to load.
EXPORTED = ("trainer", "trainer.run")
OPENS_RUNS = ("serving.calibrate", "serving.export", "serving.suspects")
FLAGS_BESIDE_ENTRIES = ("segthor.errors", "segthor.flags_of")
# What `from serving import Segmenter` loads: names that packages load when they are first used.
LAZY = {"serving": serving._MODULES, "trainer": trainer._MODULES}
# What a module may not reach, however long the chain of imports inside the project.
UNREACHED = [
    ("serving.predict", (*KERAS, "trainer", "beam_jobs", "sklearn")),
    ("serving.segmenter", (*KERAS, "trainer", "beam_jobs", "sklearn")),
    ("trainer.batches", KERAS),
    ("serving.node.*", (*KERAS, "trainer", "beam_jobs", "sklearn")),
    ("serving.prediction.predictor", ("serving.review",)),  # confidence observes, see `case`
    ("serving.prediction.volume", ("serving.review",)),
    ("segthor.geometry", ("tensorflow",)),
    ("segthor.recipe", ("tensorflow",)),
    ("segthor.audit", ("tensorflow",)),
    ("segthor.metrics", ("tensorflow",)),
    ("segthor.effort", ("tensorflow",)),
    ("serving.scoring.*", ("tensorflow", *KERAS)),
    ("serving.evaluate", ("tensorflow", *KERAS)),
    ("serving.report", ("tensorflow", *KERAS)),
    ("serving.submission", ("tensorflow", *KERAS)),
    ("serving.follow", ("tensorflow", *KERAS)),
    ("serving.card", ("tensorflow", *KERAS)),
    ("serving.convert", ("tensorflow", *KERAS)),
]


def _modules(root):
    """Dotted name -> syntax tree of every module of the four packages."""
    trees = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            trees[name.removesuffix(".__init__")] = ast.parse(path.read_text(), str(path))
            if path.name == "__init__.py":
                trees[name.removesuffix(".__init__")].is_package = True
    return trees


def _imports(name, tree):
    """Dotted names of all that a module imports at any depth; `from a import b` gives `a.b`."""
    package = name if getattr(tree, "is_package", False) else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                yield f"{base}.{alias.name}"
                if alias.name in LAZY.get(base, ()):
                    yield f"{base}.{LAZY[base][alias.name]}"
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func).rpartition(".")[2]
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            if function in ("import_module", "__import__") and isinstance(values[0], ast.Constant):
                yield values[0].value
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in (
            "tf.keras",
            "tensorflow.keras",
        ):
            yield "tensorflow.keras"


def _within(name, parents):
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def _matches(module, patterns):
    return any(
        _within(module, [pattern.removesuffix(".*")])
        if pattern.endswith(".*")
        else module == pattern
        for pattern in patterns
    )


def _is_entry(tree):
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in tree.body
    )


def _reach(start, imports):
    """Modules of the project that importing `start` can lead to, packages' __init__ included."""
    reached, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        while name:
            if name in imports and name not in reached:
                reached.add(name)
                waiting.extend(imports[name])
            name = name.rpartition(".")[0]
    return reached


def breaches(root):
    """Every breach of a wall under `root`, as readable lines."""
    trees = _modules(root)
    imports = {name: set(_imports(name, tree)) for name, tree in trees.items()}
    found = []
    for module, names in imports.items():
        banned = [library for library, homes in ONLY_IN.items() if not _matches(module, homes)]
        for pattern, never in NEVER_IN:
            banned += never if _matches(module, [pattern]) else ()
        if not _is_entry(trees[module]) and module not in FLAGS_BESIDE_ENTRIES:
            banned.append("absl.flags")
        if module.startswith("serving"):
            banned.append("trainer")
        lawful = EXPORTED if module in OPENS_RUNS else ()
        found += [
            f"{module} imports {name}"
            for name in names
            if _within(name, banned) and name not in lawful
        ]
    for pattern, banned in UNREACHED:
        for start in (module for module in imports if _matches(module, [pattern])):
            for module in _reach(start, imports):
                found += [
                    f"{start} reaches {name} through {module}"
                    for name in imports[module]
                    if _within(name, banned)
                ]
    return sorted(found)


def circles(root):
    """Circles of imports among the project's modules, lazy imports included, as readable lines.

    That a package's `__init__` runs before its modules is no import of theirs and is not counted.
    """
    trees = _modules(root)

    def inner(name):
        """The project's module that an import of `name` loads; '' for a library's."""
        while name and name not in trees:
            name = name.rpartition(".")[0]
        return name

    imports = {
        module: sorted(set(map(inner, _imports(module, tree))) - {module, ""})
        for module, tree in trees.items()
    }
    found = set()
    for module in imports:
        if way := _way_back(module, imports):
            first = way.index(min(way))
            way = way[first:] + way[:first]
            found.add(" -> ".join([*way, way[0]]))
    return sorted(found)


def _way_back(start, imports):
    """The shortest chain of modules from `start`, the last of which imports `start`; or None."""
    ways = [[start]]
    for way in ways:  # grows meanwhile, so that shorter ways come first
        if start in imports[way[-1]]:
            return way
        seen = {chain[-1] for chain in ways}
        ways += [[*way, name] for name in imports[way[-1]] if name not in seen]
    return None


def too_long(root):
    """Modules of the four packages that nobody reads in one go."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    lines = {str(path.relative_to(root)): path.read_text().count("\n") for path in paths}
    return [f"{path}: {count} lines" for path, count in lines.items() if count > LONGEST]


def test_no_module_is_too_long():
    assert too_long(ROOT) == []


def test_a_module_of_one_line_too_many_is_found(tmp_path):
    (tmp_path / "segthor" / "dicom").mkdir(parents=True)
    (tmp_path / "segthor" / "long.py").write_text("x\n" * LONGEST)
    assert too_long(tmp_path) == []
    (tmp_path / "segthor" / "dicom" / "longer.py").write_text("x\n" * (LONGEST + 1))
    assert too_long(tmp_path) == ["segthor/dicom/longer.py: 301 lines"]


# Where organs may be named, and where SegTHOR's table is used: the data job is given no table, a
# folder notes none, or it is about what others reached on SegTHOR's own patients.
ORGANS_NAMED = ("segthor.organs", "segthor.phantom.*")
SEGTHOR_TAKEN = (
    *("beam_jobs.build", "segthor.model_directory", "serving.prediction.results"),
    *("serving.scoring.pairs", "serving.scoring.tables", "serving.evaluate"),
)
TABLES = [organ_table.read(str(path)) for path in (ROOT / "configs" / "organs").glob("*.csv")]
ORGANS = {organ.name for table in TABLES for organ in table}
COLOURS = {organ.rgb for table in TABLES for organ in table}
_NAMED = re.compile(rf"\b({'|'.join(sorted(ORGANS))})\b")


def _docstrings(tree):
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr):
            yield node.body[0].value


def _named_organs(tree):
    """Names and colours of organs in a module's code and texts, docstrings and comments aside."""
    described = set(map(id, _docstrings(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _NAMED.findall(node.value) if id(node) not in described else ()
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.keyword):
            name = next(filter(None, (getattr(node, f, "") for f in ("id", "attr", "arg"))), "")
            yield from {name} & ORGANS
        elif isinstance(node, ast.Tuple | ast.List) and len(node.elts) == 3:
            values = tuple(getattr(part, "value", None) for part in node.elts)
            yield from {values} & COLOURS


def _takes_segthor(tree):
    """Whether SegTHOR's table is used, be it as the default of a parameter or of a field."""
    return any(isinstance(node, ast.Name) and node.id == "SEGTHOR" for node in ast.walk(tree))


def _with_table(trees):
    """Dotted names of the functions that take a table of organs."""
    for module, tree in trees.items():
        inner = [(f"{module}.{one.name}", one) for one in ast.walk(tree) if hasattr(one, "body")
                 and isinstance(one, ast.ClassDef)]  # fmt: skip
        for path, holder in [(module, tree), *inner]:
            for function in holder.body:
                arguments = getattr(function, "args", None)
                named = [*arguments.args, *arguments.kwonlyargs] if arguments else []
                names = {one.arg for one in named}
                if {"organs", "num_organs"} & names:
                    yield f"{path}.{function.name}".removesuffix(".__init__")


def _calls_without_table(module, tree, asked):
    """Calls of the functions `asked` that pass no table, as readable lines."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            own = first if rest == "" else f"{first}.{rest}"
            called = f"{aliases[first]}.{rest}".rstrip(".") if first in aliases else own
            if called in asked or f"{module}.{called}" in asked:
                passed = [*node.args, *node.keywords]
                if not re.search(r"organs|table", " ".join(map(ast.unparse, passed))):
                    yield f"{module}: {ast.unparse(node)} passes no table of organs"


def organ_breaches(root):
    """Every breach of the wall about the table of organs under `root`, as readable lines."""
    trees = {m: t for m, t in _modules(root).items() if not _matches(m, ("segthor.phantom.*",))}
    asked = set(_with_table(trees))
    found = []
    for module, tree in trees.items():
        if not _matches(module, ORGANS_NAMED):
            found += [f"{module} names {organ}" for organ in _named_organs(tree)]
        if not _matches(module, (*SEGTHOR_TAKEN, *ORGANS_NAMED)) and _takes_segthor(tree):
            found.append(f"{module} takes SegTHOR's table")
        found += _calls_without_table(module, tree, asked)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.*")):
            if path.suffix in (".js", ".css", ".html"):
                found += [f"{path.name} names {one}" for one in _NAMED.findall(path.read_text())]
    return sorted(found)


def test_organs_come_from_the_table_alone():
    assert organ_breaches(ROOT) == []


OWN = "from segthor.organs import SEGTHOR, Organs\n"
AUDIT = "def check(labels, organs):\n    pass\n"


@pytest.mark.parametrize(
    "path, source, breach",
    [
        ("serving/page.py", "KEYS = {'h': 'heart'}", "serving.page names heart"),
        ("serving/page.py", "print(f'{1} cm3 of the aorta')", "serving.page names aorta"),
        ("serving/page.py", "RED = (230, 60, 60)", "serving.page names (230, 60, 60)"),
        ("serving/page.py", "def f(trachea):\n    pass", "serving.page names trachea"),
        ("serving/page.py", '"""Of the heart."""\nHEARTY = "hearty"', None),
        ("serving/page.js", "const keys = { h: 'heart' };", "page.js names heart"),
        ("serving/page.js", "const keys = data.organs;", None),
        ("segthor/phantom/heart.py", "HEART = 'heart'", None),
        ("serving/page.py", f"{OWN}N = len(SEGTHOR)", "serving.page takes SegTHOR's table"),
        ("serving/page.py", f"{OWN}def f(n=len(SEGTHOR)):\n    pass", "page takes SegTHOR's table"),
        (
            "serving/page.py",
            f"{OWN}class A:\n    t: Organs = SEGTHOR",
            "page takes SegTHOR's table",
        ),
        (
            "serving/page.py",
            "from segthor import audit\naudit.check(1)",
            "check(1) passes no table",
        ),
        (
            "serving/page.py",
            "from segthor.audit import check\ncheck(1)",
            "check(1) passes no table",
        ),
        ("serving/page.py", "from segthor import audit\naudit.check(1, job.organs)", None),
        ("segthor/audit.py", f"{AUDIT}check(1)", "check(1) passes no table"),
    ],
)
def test_a_planted_organ_is_found(tmp_path, path, source, breach):
    for name, text in ({"segthor/audit.py": AUDIT} | {path: source}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    found = organ_breaches(tmp_path)
    if breach is None:
        assert found == []
    else:
        assert any(breach in line for line in found), found


def test_the_project_keeps_its_walls():
    assert breaches(ROOT) == []


def test_no_imports_go_in_a_circle():
    assert circles(ROOT) == []


@pytest.mark.parametrize(
    "sources, expected",
    [
        (
            ("from segthor import b", "from segthor import c", "def f():\n    import segthor.a"),
            "abc",
        ),
        (("from segthor import b", "from . import c", "from segthor.b import name"), "bc"),
        (("import importlib\nimportlib.import_module('segthor.a')", "", ""), ""),
        (("from segthor import b, c", "from segthor import c", "import numpy"), ""),
    ],
)
def test_a_planted_circle_is_found(tmp_path, sources, expected):
    (tmp_path / "segthor").mkdir()
    for name, source in zip("abc", sources, strict=True):
        (tmp_path / "segthor" / f"{name}.py").write_text(source)
    modules = [f"segthor.{name}" for name in expected]
    assert circles(tmp_path) == ([" -> ".join([*modules, modules[0]])] if expected else [])


def test_every_module_is_read():
    assert {"segthor", "segthor.errors", "trainer", "serving", "beam_jobs"} <= set(_modules(ROOT))


PREDICT = "import segthor.geometry\nfrom serving import volume\n"


@pytest.mark.parametrize(
    "path, source, breach",
    [
        ("trainer/data.py", "import apache_beam as beam", "trainer.data imports apache_beam"),
        ("serving/predict.py", "import apache_beam", "serving.predict imports apache_beam"),
        ("segthor/audit.py", "def f():\n    import nibabel", "segthor.audit imports nibabel"),
        ("segthor/audit.py", "import importlib\nimportlib.import_module('nibabel')", "nibabel"),
        ("trainer/loop.py", "from segmentation_models import Unet", "segmentation_models.Unet"),
        ("trainer/loop.py", "from absl import flags", "trainer.loop imports absl.flags"),
        ("trainer/loop.py", "from absl import logging", None),
        ("trainer/main.py", "from absl import flags\nif __name__ == '__main__':\n    pass", None),
        ("serving/volume.py", "import tf_keras", "serving.predict reaches tf_keras"),
        ("serving/volume.py", "import tensorflow as tf\ntf.keras.Model", "tensorflow.keras"),
        ("serving/volume.py", "from tensorflow import keras", "tensorflow.keras"),
        ("serving/volume.py", "import tensorflow as tf\ntf.nn.softmax", None),
        ("serving/volume.py", "from trainer import model", "serving.volume imports trainer.model"),
        ("serving/scoring/page.py", "import tensorflow", "serving.scoring.page reaches tensorflow"),
        ("serving/__init__.py", "import keras", "serving.predict reaches keras"),
        (
            "serving/segmenter.py",
            "import keras",
            "serving.segmenter reaches keras",
        ),
        ("serving/export.py", "import trainer\nfrom trainer import run", None),
        ("serving/export.py", "from trainer import model", "serving.export imports trainer.model"),
        (
            "serving/export.py",
            "from trainer.run import restore",
            "serving.export imports trainer.run.r",
        ),
        ("segthor/files.py", "from serving import predict", "segthor.files imports serving"),
        ("segthor/files.py", "from ..trainer import loop", "segthor.files imports trainer.loop"),
        ("segthor/geometry.py", "from . import files", "segthor.geometry reaches tensorflow"),
        ("segthor/nifti.py", "import nibabel", None),
        ("segthor/dicom/pixels.py", "import pynetdicom", "segthor.dicom.pixels imports pynetd"),
        ("serving/prediction/distributed.py", "import apache_beam", None),
        ("beam_jobs/build.py", "from apache_beam.io import ReadFromText", None),
        ("beam_jobs/build.py", "from trainer import data", "beam_jobs.build imports trainer.data"),
    ],
)
def test_a_planted_breach_is_found_and_a_lawful_import_is_not(tmp_path, path, source, breach):
    tree = {"serving/predict.py": PREDICT, "serving/volume.py": "", "segthor/geometry.py": ""}
    tree |= {"segthor/files.py": "def f():\n    import tensorflow"}
    for name, text in (tree | {path: source}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    found = breaches(tmp_path)
    if breach is None:
        assert found == []
    else:
        assert any(breach in line for line in found), found


def test_a_name_that_a_package_loads_when_it_is_used_counts_as_its_module(tmp_path):
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "segmenter.py").write_text("import tensorflow")
    (tmp_path / "serving" / "evaluate.py").write_text("from serving import Segmenter")
    expected = ["serving.evaluate reaches tensorflow through serving.segmenter"]
    assert breaches(tmp_path) == expected
