"""The house rules: who may import whom, flags only in launch, commands that explain themselves."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("beam_preprocess", "tfdata", "model", "launch")
MAY_IMPORT = {
    "launch": {"beam_preprocess", "tfdata", "model", "launch"},
    "beam_preprocess": {"beam_preprocess", "tfdata"},
    "model": {"model"},
    "tfdata": {"tfdata"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_whom_they_may(package):
    for path in (ROOT / package).glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in PACKAGES or top in MAY_IMPORT[package], f"{path.name} imports {name}"
            assert package == "launch" or not name.startswith("absl.flags"), f"{path.name}: flags live in launch"
            assert package != "tfdata" or top != "apache_beam", f"{path.name} imports Beam"


def test_spec_layout_and_records_need_neither_tensorflow_nor_beam():
    code = "import tfdata.layout, tfdata.records, sys; print({'tensorflow', 'apache_beam'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_stay_readable(package):
    assert (ROOT / package / "__init__.py").read_text() == ""
    for path in (ROOT / package).glob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, f"{path.name} has grown past 300 lines: divide it"


def test_every_command_explains_itself_with_an_example(melcache):
    from launch.__main__ import COMMANDS

    assert set(COMMANDS) == {"demo", "prepare", "cache", "heads", "verify", "report", "doctor"}
    for name in COMMANDS:
        done = melcache(name, "--help")
        assert (
            done.returncode == 0 and re.search(rf"melcache {name} (--|\w)", done.stdout) and "--[no]json" in done.stdout
        )
        assert name in ("demo", "verify") or "--output" in done.stdout


def test_an_unknown_command_is_answered_with_the_nearest(melcache):
    done = melcache("prepar")
    assert done.returncode == 2 and "did you mean 'prepare'?" in done.stderr
    assert melcache().returncode == 2 and melcache("--help").returncode == 0


def test_the_package_that_workers_get_holds_all_modules(tmp_path):
    """Dataflow workers install the sdist that setup.py builds."""
    import tarfile

    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", str(tmp_path), "sdist", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    expected = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).glob("*.[pj]*")
                if path.suffix in (".py", ".jinja")}  # fmt: skip
    assert expected <= names
