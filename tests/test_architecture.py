"""Who may import whom, read from the source of every file, and what importing the package costs."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.launch import ENVIRONMENT, ROOT

FOUNDATION = {"errors", "checks", "places", "page", "config", "distributed", "composition", "app"}  # no entry points
FOUNDATION |= {
    "columns",
    "failure",
    "files",
    "heartbeat",
    "job_store",
    "rendezvous",
    "sweeping",
    "trial",
    "weights_and_biases",
}
ROOMS = {  # and the rooms that each may import
    "corpus": set(),
    "stream": set(),
    "model": set(),
    "training": {"model", "stream", "evaluation", "planning"},
    "inference": {"model"},
    "finetuning": {"model", "stream", "training", "evaluation", "inference"},
    "evaluation": {"model", "stream", "inference"},
    "compression": {"model", "inference", "evaluation"},
    "diagnosis": set(),
    "planning": {"model", "stream"},  # its curricula
}
# what a machine may lack (the extras of pyproject.toml), or what would make `--help` slow
LAZY = {"deepspeed", "lion_pytorch", "wandb", "transformers", "datatrove", "ray", "hydra", "omegaconf", "torchao"}
LAZY |= {"triton", "fastwarc", "resiliparse", "mwxml", "mwparserfromhell", "ebooklib", "py3langid", "phonenumbers"}
LAZY |= {"pyarrow", "zstandard", "fsspec", "aiohttp", "tensorboard", "lm_eval", "sklearn"}
LAZY |= {"bitsandbytes", "peft", "optuna", "fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}
LAZY |= {"jsonschema", "referencing"}
HEAVY = LAZY | {"torch", "numpy", "rich", "sentencepiece", "safetensors", "webdataset"}

FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for package in ("framework", "kernels")
    for path in sorted((ROOT / package).rglob("*.py"))
}
ENTRY_POINTS = sorted(p.stem for p in (ROOT / "framework").glob("*.py") if p.stem not in FOUNDATION | {"__init__"})


def imports(file: str, tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported anywhere in a tree; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.split("/")[: -node.level] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def top_level_imports(file: str) -> Iterator[str]:
    """Those that run when the file is imported: neither in a function nor under `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [FILES[file]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(file, node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


# The server is made of them; who starts it imports it where he does.
SERVER = "framework/inference/server/"
SERVED_BY = {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}

# Their classes derive from datatrove's, so they need it at the top; who uses them imports them where he does.
STEPS = {
    f
    for f in FILES
    if f.startswith("framework/corpus/") and "datatrove" in {n.split(".")[0] for n in top_level_imports(f)}
}


def place(name: str) -> str:
    """Room or module of `framework` that a dotted name is in; '' for the package's own `__version__`."""
    part = name.split(".")[1]
    return "" if part.startswith("__") else part


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("framework/")])
def test_imports_go_one_way(file):
    here = place(file.removesuffix(".py").replace("/", "."))
    for name in imports(file, FILES[file]):
        root = name.split(".")[0]
        there = place(name) if name.startswith("framework.") else ""
        assert root not in ("tests", "configs", "benchmarks"), f"{file} imports {name}"
        if root != "framework" or there in ("", here):
            assert root != "kernels" or here in ROOMS, f"{file} imports {name}: kernels are for rooms"
        elif here in FOUNDATION:
            settings = here == "config" and name.split(".")[-2] == "settings"  # plain dataclasses
            assert there in FOUNDATION or settings, f"{file} imports {name}: the foundation stands on itself"
        elif here in ROOMS:
            assert there in FOUNDATION - {"app"} | ROOMS[here], f"{file} imports {name}"
        else:
            assert there in FOUNDATION | set(ROOMS), f"{file} imports {name}: one entry point imports another"


def test_every_directory_is_a_room_of_the_table():
    directories = {path.parent.name for path in (ROOT / "framework").glob("*/__init__.py")}
    assert directories - FOUNDATION <= set(ROOMS)
    assert {"prepare", "pretrain", "generate"} <= set(ENTRY_POINTS)


def test_the_table_has_no_cycle():
    graphlib.TopologicalSorter(ROOMS).prepare()


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("kernels/")])
def test_kernels_import_torch_and_triton_alone(file):
    allowed = {"kernels", "torch", "triton", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imports(file, FILES[file])} <= allowed


@pytest.mark.parametrize("file", FILES)
def test_what_a_machine_may_lack_is_imported_where_it_is_used(file):
    lazy = LAZY - {"triton"} if file.startswith("kernels/") else LAZY
    lazy = lazy - {"datatrove"} if file in STEPS else lazy
    lazy = lazy - SERVED_BY if file.startswith(SERVER) else lazy
    assert not {name.split(".")[0] for name in top_level_imports(file)} & lazy


def test_steps_are_imported_where_they_are_used():
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in STEPS}
    for file in set(FILES) - STEPS - {"framework/corpus/pipeline.py"}:  # which `prepare` imports where it is used
        for name in top_level_imports(file):
            assert not {name, name.rpartition(".")[0]} & modules, f"{file} imports {name}, and so datatrove, at its top"


def test_the_server_is_imported_where_it_is_started():
    for file in FILES:
        if not file.startswith(SERVER):
            assert not [name for name in top_level_imports(file) if name.startswith("framework.inference.server")], file


def test_hydra_is_kept_in_one_place():
    users = {file for file, tree in FILES.items() for name in imports(file, tree) if name.split(".")[0] == "hydra"}
    assert users == {"framework/composition.py"}


@pytest.mark.parametrize("module", ["framework", *(f"framework.{name}" for name in ENTRY_POINTS)])
def test_importing_is_light(module):
    program = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "framework" in loaded
    assert not loaded & HEAVY


def test_the_reader_of_imports_sees_them_all():
    tree = ast.parse("import a.b\nfrom .c import d\ndef f():\n    from e import g\nif TYPE_CHECKING:\n    import h")
    assert set(imports("framework/room/file.py", tree)) == {"a.b", "framework.room.c.d", "e.g", "h"}
