"""The truth about a simulated shop: what each defect cost, and what each intervention changed.

A defect's cost is the difference in orders between two runs of the same seed, with and without
the defect and without interventions. Draws are counted per visitor and step, so only visitors who
met the defect can differ, and only they are run again.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recoup.events import MICROS, iso
from recoup.interventions import INTERVENTIONS
from recoup.simulator import layout as at
from recoup.simulator.acts import LEDGER
from recoup.simulator.catalogue import CURRENCY
from recoup.simulator.clock import bounds
from recoup.simulator.law import live
from recoup.simulator.nuisances import LOSING
from recoup.simulator.scenario import DefectSpec, EffectSpec, Scenario
from recoup.simulator.stock import outages
from recoup.simulator.world import World, new_state, part_of

Truth: TypeAlias = dict[str, Any]


def tell_truth(
    world: World,
    scenario: Scenario,
    state: NDArray[np.int64],
    acted: NDArray[np.bool_],
    ledger: NDArray[np.int64],
    now: int,
) -> Truth:
    """Say what was wrong up to ``now``, what it cost, and what the acts changed.

    Parameters
    ----------
    state
        The visitors' state at ``now``, shape (visitors, STATE_WIDTH).
    acted
        Who was shown an intervention, shape (visitors,).
    ledger
        Counts per intervention, shape (interventions, len(LEDGER)).
    """
    alone = state
    if acted.any():
        alone = state.copy()
        alone[acted] = rerun(world, np.flatnonzero(acted), now)
    defects = [
        _defect_truth(world, spec, index, alone, now) for index, spec in enumerate(scenario.defects)
    ]
    return {
        "scenario": scenario.name,
        "currency": CURRENCY,
        "from": iso(world.begin),
        "to": iso(now),
        "defects": defects,
        "interventions": [_effect_truth(effect, ledger) for effect in scenario.effects],
        "totals": _totals(state, alone),
    }


def rerun(
    world: World, visitors: NDArray[np.int64], now: int, without: int | None = None
) -> NDArray[np.int64]:
    """Give the state at ``now`` of some visitors left alone, with one defect switched off."""
    troubles = world.rules.troubles
    table = troubles.table.copy()
    if without is not None:
        table[without, at.D_ON] = 0
    rules = world.rules._replace(troubles=troubles._replace(table=table))
    part = part_of(world, visitors)._replace(rules=rules)
    state = new_state(part)
    events = np.empty((2, at.EVENT_WIDTH), np.int64)
    lines = np.empty((at.SHOWN + 2, at.LINE_WIDTH), np.int64)
    live(state, part, now, 0, events, lines, np.zeros(2, np.int64), False)  # noqa: FBT003
    return state


def _defect_truth(
    world: World, spec: DefectSpec, index: int, alone: NDArray[np.int64], now: int
) -> Truth:
    met = np.flatnonzero(alone[:, at.MET] >> index & 1)
    without = rerun(world, met, now, index)
    orders, spent = (
        int((without[:, column] - alone[met, column]).sum()) for column in (at.ORDERS, at.SPENT)
    )
    since, until = bounds(world.begin, world.end, spec.since, spec.until)
    return {
        "id": spec.id,
        "type": spec.type,
        "entity": dict(spec.entity),
        "from": iso(since),
        "to": None if spec.until is None else iso(until),
        "lost_orders": orders,
        "lost_value": spent / MICROS,
        "met_by": len(met),
        "share": spec.share,
        "effect": spec.effect,
        "size": spec.size,
        "lasting": spec.lasting,
    }


def _effect_truth(effect: EffectSpec, ledger: NDArray[np.int64]) -> Truth:
    row = [each.id for each in INTERVENTIONS].index(effect.intervention)
    counts = dict(zip(LEDGER, (int(count) for count in ledger[row]), strict=True))
    return {
        "intervention": effect.intervention,
        "recovered": dict(effect.recovered),
        "fade_s": effect.fade_s,
        "annoys": effect.annoys,
        "annoys_browsing": effect.annoys_browsing,
        "spread": effect.spread,
        "warm": effect.warm,
        **counts,
    }


def _totals(state: NDArray[np.int64], alone: NDArray[np.int64]) -> Truth:
    """Sum what happened, beside what would have happened without interventions."""
    orders, spent = int(state[:, at.ORDERS].sum()), int(state[:, at.SPENT].sum())
    return {
        "visitors": int((state[:, at.VISIT] > 0).sum()),
        "sessions": int(state[:, at.VISIT].sum()),
        "events": int(state[:, at.EVENTS].sum()),
        "orders": orders,
        "value": spent / MICROS,
        "orders_without_acts": int(alone[:, at.ORDERS].sum()),
        "value_without_acts": int(alone[:, at.SPENT].sum()) / MICROS,
        "cost_of_acts": int(state[:, at.COST].sum()) / MICROS,
    }


def nuisance_truth(world: World, scenario: Scenario, lost: NDArray[np.int64]) -> Truth:
    """Say what moved the shop's figures and was no defect.

    Parameters
    ----------
    lost
        How many events each of the losses took, in the order of the nuisances that lose events.
    """
    counts = iter(lost.tolist())
    told = []
    for spec in scenario.nuisances:
        since, until = bounds(world.begin, world.end, spec.since, spec.until)
        each: Truth = {
            "kind": spec.kind,
            "from": iso(since),
            "to": None if spec.until is None else iso(until),
            "entity": dict(spec.entity),
            "size": spec.size,
        }
        if spec.kind in LOSING:
            each |= {"events": list(spec.lost_events), "events_lost": next(counts)}
        told.append(each)
    gone = outages(world.rules.stock, world.begin, world.end)
    return {
        "nuisances": told,
        "stock": [out | {"from": iso(out["from"]), "to": iso(out["to"])} for out in gone],
    }
