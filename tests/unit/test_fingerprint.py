import pytest

from dprobust import fingerprint as module
from dprobust.fingerprint import fingerprint

FILES = {
    "top.py": (
        '"""Doc."""\nfrom pkg import middle\nfrom pkg.folder.leaf import f\nimport math\n\n\ndef g():\n    return f()\n'
    ),
    "middle.py": "X = 1  # a comment\n",
    "other.py": "Y = 1\n",
    "folder/__init__.py": "",
    "folder/leaf.py": 'def f():\n    """Doc."""\n    return 2\n',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "pkg"
    (root / "folder").mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    monkeypatch.setattr(module, "PACKAGE", root)
    module._parse.cache_clear()
    yield root
    module._parse.cache_clear()


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    module._parse.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("top.py", "return f()", "return f() + 1", True),
        ("middle.py", "X = 1", "X = 2", True),
        ("folder/leaf.py", "return 2", "return 3", True),
        ("other.py", "Y = 1", "Y = 2", False),
        ("middle.py", "a comment", "another", False),
        ("folder/leaf.py", "Doc.", "Better doc.", False),
        ("folder/leaf.py", '    """Doc."""\n', "", False),
        ("top.py", "import math\n", "import math\n\n\n", False),
        ("folder/__init__.py", "", "Z = 1\n", True),
    ],
)
def test_what_counts(package, name, old, new, changes):
    before = fingerprint("top")
    edit(package / name, old, new) if old else (package / name).write_text(new)
    module._parse.cache_clear()
    assert (fingerprint("top") != before) == changes


def test_unknown_module_is_an_error(package):
    with pytest.raises(ValueError, match="pkg has no module 'nonsense'"):
        fingerprint("top", "nonsense")


def test_stages_depend_on_what_they_use():
    """The real package: an attack's edit retrains nothing, a plot's edit measures nothing."""
    training = fingerprint("training", "models", "arrays")
    assert training != fingerprint("attacks", "models") != fingerprint("plots.fgsm")
    files = {path.name for path in module.closure("training")}
    assert "dpsgd.py" in files and "arrays.py" in files and "attacks.py" not in files and "style.py" not in files
