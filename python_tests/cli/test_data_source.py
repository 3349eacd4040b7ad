from __future__ import annotations

import pytest

from mdprop_ext.cli.data_source import DataSource


def test_repr_has_what_was_given():
    assert repr(DataSource("digits")) == "DataSource(name='digits')"
    source = DataSource("folder", test="birds.zip", channels=3)
    assert repr(source) == "DataSource(name='folder', test='birds.zip', channels=3)"
    assert eval(repr(source)) == source


def test_a_source_is_found_again_by_its_description():
    source = DataSource("folder", test="birds.zip", channels=3)
    assert DataSource.described(source.describe()) == source
    with pytest.raises(ValueError, match="data: the checkpoint does not say what it was trained on"):
        DataSource.described({"origin": "a script"})
