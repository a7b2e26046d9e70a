"""What an operating point is to promise: `--at sensitivity=0.95`, `cost=FP:1,FN:20`."""

import re
from typing import Literal, get_args

from onepass.cache.artifacts import record
from onepass.cache.errors import UsageError

Rate = Literal["sensitivity", "specificity", "precision"]
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
RATE = re.compile(rf"(?P<kind>{'|'.join(get_args(Rate))})=(?P<share>{NUMBER})")
COST = re.compile(rf"cost=FP:(?P<false_alarm>{NUMBER}),FN:(?P<miss>{NUMBER})", re.IGNORECASE)
GOAL_HELP = "sensitivity=0.95, specificity=0.99, precision=0.9 or cost=FP:1,FN:20 (of a false alarm, of a miss)"


@record
class RateGoal:
    """A rate that is to be reached, 0 … 1, both excluded."""

    kind: Rate
    share: float

    @property
    def whatever_the_mix(self) -> bool:
        """Whether it stays reached where the positive class is rarer or more frequent."""
        return self.kind != "precision"

    def __str__(self) -> str:
        return f"{self.kind}={self.share:g}"


@record
class CostGoal:
    """What a false alarm and a miss cost, in any unit, both above 0; the mean cost is to be least."""

    false_alarm: float
    miss: float

    whatever_the_mix = False

    def __str__(self) -> str:
        return f"cost=FP:{self.false_alarm:g},FN:{self.miss:g}"


Goal = RateGoal | CostGoal


def parse_goal(text: str) -> Goal:
    """Return the goal of `--at`.

    Raises:
        UsageError: It is written in another way, or cannot be promised.
    """
    if (found := RATE.fullmatch(text)) and 0 < float(found["share"]) < 1:
        return RateGoal(found["kind"], float(found["share"]))  # type: ignore[arg-type]
    if (found := COST.fullmatch(text)) and float(found["false_alarm"]) * float(found["miss"]) > 0:
        return CostGoal(float(found["false_alarm"]), float(found["miss"]))
    raise UsageError(
        f"--at {text}: expected {GOAL_HELP}, with rates between 0 and 1 and costs above 0"
    )
