"""``python -m benchmarks.gpu_check --out DIR``: builds for the card at hand, tests, sanitizes, measures.

Each stage writes DIR/<stage>.json when it ends. The exit status is 0 if all passed or there is no GPU, 1 if a stage
failed, 3 if none failed but the time was too short for one.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_check import bench, build, machine, sanitize, tests
from benchmarks.gpu_check.stages import Deadline, Stage, exit_status, run_stages

ROOT = Path(__file__).resolve().parent.parent.parent
TOTAL_S = 570.0  # of all stages together, so that a run ends within ten minutes
STAGES = (
    Stage("build", 150, build.run),
    Stage("test", 140, tests.run, needs=("build",)),
    Stage("sanitize", 120, sanitize.run, needs=("build",)),
    Stage("bench", 140, bench.run),  # parts of it do not need the build
)


def selected(names: str, budgets: Sequence[str], stages: Sequence[Stage] = STAGES) -> tuple[list[Stage], float]:
    """The named stages in their own order with the budgets that were given, and the seconds that they share.

    These are ten minutes, or more where budgets ask for more. The last stage may take all that is left, unless it was
    given a budget.

    Raises:
        ValueError: If a name is unknown or a budget is not ``STAGE=SECONDS``.
    """
    known = {stage.name: stage for stage in stages}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ValueError(f"unknown stage {name!r}: expected some of {','.join(known)}")
    for budget in budgets:
        name, _, seconds = budget.partition("=")
        if name not in known:
            raise ValueError(f"unknown stage in budget {budget!r}: expected STAGE=SECONDS of {','.join(known)}")
        try:
            known[name] = dataclasses.replace(known[name], seconds=float(seconds))
        except ValueError:
            raise ValueError(f"budget {budget!r}: expected STAGE=SECONDS, such as {name}=300") from None
        if not known[name].seconds > 0:
            raise ValueError(f"budget {budget!r}: expected more than 0 seconds")
    chosen = [stage for name, stage in known.items() if name in wanted]
    total = max(TOTAL_S, sum(stage.seconds for stage in chosen)) if budgets else TOTAL_S
    if not any(budget.startswith(f"{chosen[-1].name}=") for budget in budgets):
        chosen[-1] = dataclasses.replace(chosen[-1], seconds=total)
    return chosen, total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = ",".join(stage.name for stage in STAGES)
    defaults = ", ".join(f"{stage.name}={stage.seconds:.0f}" for stage in STAGES)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/gpu-check", metavar="DIR", help="where the JSON goes")
    parser.add_argument("--stage", default=everything, metavar="A,B", help=f"of {everything}; all by default")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="STAGE=SECONDS",
        help=f"default: {defaults}; the last of the stages takes what is left of {TOTAL_S:.0f}",
    )
    options = parser.parse_args(arguments)
    try:
        stages, total = selected(options.stage, options.budget)
    except ValueError as error:
        parser.error(str(error))
    clock = Deadline(total)
    torch_facts = machine.facts_of_torch()
    reason = machine.obstacle(machine.cards_of_driver(), torch_facts)
    if reason is not None:
        print(reason[0])
        return reason[1]
    facts = machine.collect(torch_facts, ROOT)
    start, table = time.monotonic(), []

    def announce(text: str) -> None:
        table.append(text)
        print(text, flush=True)

    out = options.out.resolve()
    work = ROOT / "build/gpu-check"
    verdicts = run_stages(stages, root=ROOT, out=out, work=work, facts=facts, announce=announce, clock=clock)
    print(f"\n{facts['gpu']}, torch {facts['torch']}, {time.monotonic() - start:.0f} s; files in {out}")
    print("\n".join(table))
    return exit_status(verdicts)


if __name__ == "__main__":
    sys.exit(main())
