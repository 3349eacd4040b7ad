from __future__ import annotations

from mdprop_ext.cli.data_source import DataSource


def test_repr_has_what_was_given():
    assert repr(DataSource("digits")) == "DataSource(name='digits')"
    source = DataSource("folder", test="birds.zip", channels=3)
    assert repr(source) == "DataSource(name='folder', test='birds.zip', channels=3)"
    assert eval(repr(source)) == source
