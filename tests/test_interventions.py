"""The interventions' catalogue, and who may have one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.defects import DEFECT_TYPES
from recoup.errors import ConfigError
from recoup.friction.signals import SIGNALS
from recoup.interventions import (
    INTERVENTIONS,
    UNEXPLAINED,
    Limits,
    best_for,
    eligible,
    intervention,
)

DAY = 86_400_000_000


def test_every_reason_is_a_row_of_the_catalogue_and_each_signal_has_an_answer() -> None:
    assert len(DEFECT_TYPES) == 40
    for each in INTERVENTIONS:
        assert set(each.reasons) <= set(DEFECT_TYPES)
        assert 0 < each.prior_mean < 1
    assert all(best_for(signal.id, 4) for signal in SIGNALS)


def test_ids_are_looked_up_and_unknown_ones_refused() -> None:
    assert intervention("coupon").general
    with pytest.raises(ConfigError, match="payment_retry"):
        intervention("gift")


def test_an_unexplained_drop_is_answered_from_its_stage_on() -> None:
    assert [each.id for each in best_for(UNEXPLAINED, 2)] == []
    assert [each.id for each in best_for(UNEXPLAINED, 3)] == ["error_recovery"]
    assert {each.id for each in best_for(UNEXPLAINED, 4)} == {"payment_retry", "error_recovery"}


def test_limits_agree_with_the_catalogue() -> None:
    limits = Limits()
    for row, each in enumerate(INTERVENTIONS):
        assert limits.rules[row].tolist() == [
            *each.stages, each.cap_per_day,
            each.cooldown_s * 1_000_000, each.deadline_s * 1_000_000,
        ]  # fmt: skip
        assert limits.costs[row].tolist() == [each.cost_micros, each.cost_share]


@given(
    waits=st.lists(st.integers(1, DAY), max_size=3),
    stage=st.integers(0, 5),
    since=st.integers(0, 10_000),
)
def test_eligibility_is_what_the_rules_say(waits: list[int], stage: int, since: int) -> None:
    rule, now = np.array([3, 4, 2, 5_000, 6_000]), 10 * DAY
    past = sorted((now - wait for wait in waits), reverse=True)
    acted = np.array([*past, 0, 0, 0][:3])
    within = [at for at in past if now - at < DAY]
    expected = (
        3 <= stage <= 4
        and since <= 6_000
        and (not past or now - past[0] >= 5_000)
        and len(within) < 2
    )
    assert eligible(rule, stage, now, now - since, acted) == expected
