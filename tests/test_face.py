"""`import mlx_fp`: every public name is there, and wrong ones come back with candidates."""

import pytest

import mlx_fp as fp


def test_every_public_name_resolves():
    assert all(getattr(fp, name) is not None for name in fp.__all__)
    assert set(fp.__all__) <= set(dir(fp))


def test_an_unknown_name_comes_back_with_candidates():
    with pytest.raises(AttributeError, match="did you mean 'trainer'"):
        fp.trianer
