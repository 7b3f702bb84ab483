"""A metric of an experiment, and its mean in two arms, from rows."""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np
import polars as pl

from recoup.causal.arms import ArmMean, optimal_slope
from recoup.causal.estimate import Floats, Ints
from recoup.causal.journeys import Bools
from recoup.causal.tables import named_codes, reals
from recoup.errors import ConfigError, SchemaError


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured: the mean of a column, or a ratio of two columns' sums.

    Parameters
    ----------
    top
        Column.
    bottom
        Column that it is a ratio to; None for a mean per row.
    less_is_better
        Whether a fall is a gain.
    margin
        For a guardrail: the relative harm, in (0, 1), that would be too much.

    Examples
    --------
    >>> Metric.parse("revenue/sessions").name
    'revenue/sessions'
    >>> Metric.parse("returns=0.02", guardrail=True, less_is_better=True).margin
    0.02
    """

    top: str
    bottom: str | None = None
    less_is_better: bool = False
    margin: float | None = None

    @classmethod
    def parse(cls, text: str, *, guardrail: bool = False, less_is_better: bool = False) -> Self:
        """Read ``TOP``, ``TOP/BOTTOM`` or, for a guardrail, ``TOP=MARGIN``, ``TOP/BOTTOM=MARGIN``.

        Raises
        ------
        ConfigError
            If a guardrail's margin is no number in (0, 1).
        """
        name, _, margin = text.partition("=") if guardrail else (text, "", "")
        top, _, bottom = name.partition("/")
        if not guardrail:
            return cls(top=top, bottom=bottom or None, less_is_better=less_is_better)
        try:
            number = float(margin or 0.01)
        except ValueError:
            number = 0.0
        if not 0 < number < 1:
            raise ConfigError(
                f"Expected a guardrail with a relative margin in (0, 1), got {text!r}",
                hint="for a harm of 2 %: --guardrail returns=0.02",
            )
        return cls(top=top, bottom=bottom or None, less_is_better=less_is_better, margin=number)

    @property
    def name(self) -> str:
        """The metric as it is written."""
        return self.top if self.bottom is None else f"{self.top}/{self.bottom}"

    @property
    def sign(self) -> float:
        """1 where a rise is a gain, else -1."""
        return -1.0 if self.less_is_better else 1.0


class TrialRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of an experiment, as arrays.

    Parameters
    ----------
    names
        Of the arms, the control first.
    arm
        Shape (n,): code of each row's arm.
    cluster
        Shape (n,): code of what was assigned; each row on its own where None.
    columns
        Shape (n,) each: the metrics' columns, by name.
    covariates
        Shape (n, k): what was known before assignment.

    Examples
    --------
    >>> table = pl.DataFrame({"arm": ["a", "b", "a"], "paid": [1.0, 2.0, 3.0]})
    >>> rows = read_rows(table, arm="arm", control="a", metrics=[Metric(top="paid")])
    >>> rows.names, rows.arm.tolist()
    (['a', 'b'], [0, 1, 0])
    """

    names: list[str]
    arm: Ints
    cluster: Ints | None
    columns: dict[str, Floats]
    covariates: Floats

    def take(self, rows: Bools) -> "TrialRows":
        """Give some of the rows; ``rows`` is a mask of shape (n,)."""
        return TrialRows(
            names=self.names,
            arm=self.arm[rows],
            cluster=None if self.cluster is None else self.cluster[rows],
            columns={name: column[rows] for name, column in self.columns.items()},
            covariates=self.covariates[rows],
        )

    def units(self) -> dict[str, int]:
        """Count what was assigned to each arm."""
        arms = self.arm
        if self.cluster is not None:
            arms = self.arm[np.unique(self.cluster, return_index=True)[1]]
        counts = np.bincount(arms, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True))

    def compared(self, metric: Metric, arm: int) -> tuple[ArmMean, ArmMean]:
        """Give the metric's mean in the control and in an arm, adjusted by the covariates."""
        sides = [_Side.of(self, metric, self.arm == code) for code in (0, arm)]
        slope = np.zeros(0)
        if self.covariates.shape[1]:
            moments = [side.moments() for side in sides]
            slope = optimal_slope(moments[0][0] + moments[1][0], moments[0][1] + moments[1][1])
        everyone = self.covariates[(self.arm == 0) | (self.arm == arm)]
        control, treated = (side.mean(slope, everyone.mean(axis=0)) for side in sides)
        return control, treated


class _Side(msgspec.Struct, frozen=True):
    """One metric in one arm: its value and what each row adds to it."""

    value: float
    influence: Floats
    cluster: Ints | None
    before: Floats
    centred: Floats

    @classmethod
    def of(cls, rows: TrialRows, metric: Metric, here: Bools) -> Self:
        top = rows.columns[metric.top][here]
        bottom = np.ones(len(top)) if metric.bottom is None else rows.columns[metric.bottom][here]
        if len(top) == 0 or bottom.mean() == 0:
            raise SchemaError(
                f"Expected rows with a sum of {metric.bottom or 'rows'} other than 0 in every arm"
            )
        value, before = float(top.mean() / bottom.mean()), rows.covariates[here]
        influence = (top - value * bottom) / bottom.mean()
        cluster = None if rows.cluster is None else rows.cluster[here]
        middle = before.mean(axis=0)
        return cls(value, influence, cluster, middle, before - middle)

    def moments(self) -> tuple[Floats, Floats]:
        """Give covariances of outcome and covariates, and of these among themselves, of means."""
        outcome, covariates = self.influence[:, None], self.centred
        if self.cluster is not None:
            codes = np.unique(self.cluster, return_inverse=True)[1]
            outcome, covariates = (_sums(each, codes) for each in (outcome, covariates))
        units, rows = len(outcome), len(self.influence)
        if units < 2:  # noqa: PLR2004 - a spread needs two
            raise SchemaError("Expected at least two units in either arm, got fewer")
        scale = rows**2 * (units - 1) / units
        return (covariates.T @ outcome)[:, 0] / scale, covariates.T @ covariates / scale

    def mean(self, slope: Floats, middle: Floats) -> ArmMean:
        """Give the mean that covariates at their ``middle`` would have."""
        if not len(slope):
            return ArmMean.from_influence(
                self.value, self.influence, self.cluster, plain=self.value
            )
        influence = self.influence - self.centred @ slope
        adjusted = self.value - float((self.before - middle) @ slope)
        return ArmMean.from_influence(adjusted, influence, self.cluster, plain=self.value)


def read_rows(
    table: pl.DataFrame,
    *,
    arm: str,
    control: str,
    metrics: Sequence[Metric],
    cluster: str | None = None,
    covariates: Sequence[str] = (),
) -> TrialRows:
    """Read an experiment from a table of one row a unit, or several where ``cluster`` names it.

    Raises
    ------
    SchemaError
        If the control or a second arm is absent, a number is missing, or a cluster is in two arms.
    """
    labels = table.get_column(arm).cast(pl.String)
    if labels.null_count():
        row = int(labels.is_null().arg_max() or 0)
        raise SchemaError(f"Expected an arm in every row, got none - at {arm}[{row}]")
    others = sorted(set(labels.unique().to_list()) - {control})
    if not (labels == control).any() or not others:
        raise SchemaError(
            f"Expected control {control!r} and another arm, got {labels.unique().sort().to_list()}",
            hint="name the control as the column has it",
        )
    names = [control, *others]
    codes = labels.replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()
    clusters = None if cluster is None else named_codes(table, cluster)
    if clusters is not None:
        _check_one_arm(table.get_column(str(cluster)), clusters, codes)
    wanted = {name for metric in metrics for name in (metric.top, metric.bottom) if name}
    before = [reals(table, name) for name in covariates]
    return TrialRows(
        names=names,
        arm=codes,
        cluster=clusters,
        columns={name: reals(table, name) for name in sorted(wanted)},
        covariates=np.column_stack(before) if before else np.zeros((table.height, 0)),
    )


def _check_one_arm(keys: pl.Series, clusters: Ints, arms: Ints) -> None:
    first = np.unique(clusters, return_index=True)[1]
    moved = arms[first][clusters] != arms
    if moved.any():
        row = int(np.argmax(moved))
        raise SchemaError(
            f"Expected one arm for each {keys.name!r}, got a second for {keys[row]!r} - at row "
            f"{row}",
            hint="leave out whoever saw both, and ask why they did",
        )


def _sums(values: Floats, codes: Ints) -> Floats:
    return np.column_stack([np.bincount(codes, column) for column in values.T])
