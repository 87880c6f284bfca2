"""The order of rows: each seed's own, and the same whether it was drawn ahead or not."""

from __future__ import annotations

import numpy as np
import pytest

from layerwise import datasets, orders, pretraining, stages
from layerwise.orders import Order
from tests.studies import small


@pytest.fixture
def rows() -> np.ndarray:
    return np.stack([np.arange(20, dtype=np.int32), np.arange(30, 50, dtype=np.int32)])


def test_every_epoch_visits_each_row_of_a_seed_once(rows):
    """An order is ``(seeds, epochs, n)``: of each seed its own rows, each once an epoch, in other orders."""
    drawn = Order((4, 9), "base", 1, epochs=3).drawn(rows)
    assert (drawn.shape, drawn.dtype) == ((2, 3, 20), np.int32)
    np.testing.assert_array_equal(np.sort(drawn, axis=2), np.repeat(rows[:, np.newaxis], 3, axis=1))
    assert len({tuple(epoch - seed[0].min()) for seed in drawn for epoch in seed}) == 6


def test_an_order_that_was_drawn_ahead_is_the_same(rows, monkeypatch):
    """It is taken where it was begun for this very key and these very rows, and drawn where it was not."""
    first, second = (Order((4, 9), "add_layer", depth, epochs=3) for depth in (2, 3))
    expected, calls, drawn = second.drawn(rows), [], Order.drawn
    monkeypatch.setattr(Order, "drawn", lambda self, rows: calls.append(self.depth) or drawn(self, rows))
    orders.order(first, rows, following=second)
    np.testing.assert_array_equal(orders.order(second, rows), expected)
    assert sorted(calls) == [2, 3]
    for other, others_rows in ((Order((4, 9), "add_layer", 3, epochs=2), rows), (second, rows + 100)):
        orders.order(first, rows, following=second)
        np.testing.assert_array_equal(orders.order(other, others_rows), drawn(other, others_rows))
    np.testing.assert_array_equal(orders.order(second, rows), expected)


def test_a_large_order_is_drawn_where_it_is_wanted(rows, monkeypatch):
    """What takes more memory than is worth it is not drawn ahead."""
    first, second = (Order((4, 9), "add_layer", depth, epochs=3) for depth in (2, 3))
    monkeypatch.setattr(orders, "AHEAD_BYTES", rows.nbytes * second.epochs - 1)
    monkeypatch.setattr(orders._AHEAD, "begin", lambda *_: pytest.fail("it was drawn ahead"))
    orders.order(first, rows, following=second)


@pytest.mark.parametrize("arm", ["greedy", "autoencoder"])
def test_each_stage_draws_the_next_one_that_its_arm_trains(arm, monkeypatch):
    """Of a network of three layers every order after the first ones is begun by the stage below."""
    objective = "supervised" if arm == "greedy" else "reconstruction"
    study = small(depth=3, arms={arm: {"objective": objective}})
    data, asked, order = datasets.generate(study.data), [], orders.order
    (block, *_) = stages.blocks(study, arm, data.digest)

    def noted(wanted, rows, *, following=None):
        asked.append((wanted, following))
        return order(wanted, rows, following=following)

    monkeypatch.setattr(orders, "order", noted)
    list(pretraining.depths(block, data))
    begun = [following for _, following in asked if following is not None]
    wanted = [one for one, _ in asked]
    assert begun == [one for one in wanted if one.depth > 1]
