"""Rows spread evenly over a split, however long it is."""

from civae_core.data.labelled import evenly_spread


def test_rows_are_spread_evenly_and_never_beyond_the_last() -> None:
    assert evenly_spread(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spread(3, 9).tolist() == [0, 1, 2] and evenly_spread(0, 9).tolist() == []
    # 32 bits hold no odd number beyond 2**24.
    many = evenly_spread(16_777_220, 1000)
    assert int(many[-1]) == 16_777_219 and len(many.unique()) == 1000
