"""Registries find what files register, without a list."""

from __future__ import annotations

import sys

import pytest

from osmn_tf.errors import InputError
from osmn_tf.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `animals` with one module that registers, and two that need what is not installed."""
    folder = tmp_path / "animals"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from osmn_tf.registry import Registry\nANIMALS = Registry('animal', 'animals')\n"
    )
    (folder / "dog.py").write_text("from animals import ANIMALS\n@ANIMALS.register('dog')\nclass Dog: ...\n")
    (folder / "fish.py").write_text("import no_such_package\n")
    (folder / "bird.py").write_text(
        "from osmn_tf.errors import MissingDependencyError\nraise MissingDependencyError('wings', 'sky', 'flying')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "animals"]:
        del sys.modules[name]


def test_files_of_the_package_are_found(package):
    from animals import ANIMALS

    assert "animals.dog" not in sys.modules
    dog = ANIMALS.get("dog")
    assert dog.__name__ == "Dog"
    assert ANIMALS.names() == ["dog"]
    assert (ANIMALS.name_of(dog), ANIMALS.name_of(dict)) == ("dog", None)


def test_unknown_names_list_what_there_is_and_what_is_missing(package):
    from animals import ANIMALS

    ANIMALS.register("ant")(object())
    with pytest.raises(InputError) as caught:
        ANIMALS.get("cat")
    assert str(caught.value) == (
        "animal: expected one of ant, dog, received 'cat' (not available: flying needs the package 'wings', which is "
        "not installed: run  pip install 'osmn-tf[sky]'; fish needs the package 'no_such_package')"
    )


def test_a_faulty_file_is_not_passed_over(package):
    (package / "cow.py").write_text("import animals.grass\n")
    from animals import ANIMALS

    with pytest.raises(ModuleNotFoundError, match=r"animals\.grass"):
        ANIMALS.names()


def test_two_things_of_one_name():
    registry: Registry = Registry("thing", "osmn_tf.models")

    def define():
        class Thing: ...

        return Thing

    first = registry.register("thing")(define())
    again = registry.register("thing")(define())  # the same definition once more, as by running a cell again
    assert again is not first
    assert registry.get("thing") is again

    class Other: ...

    with pytest.raises(ValueError, match=r"thing 'thing': .*Other would replace .*Thing"):
        registry.register("thing")(Other)
    assert registry.get("thing") is again
