"""Run every benchmark, each in a process of its own: ``python -m benchmarks [NAME ...]``."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the benchmarks whose file name contains one of ``names``, or all of them."""
    scripts = sorted(HERE.glob("bench_*.py"))
    chosen = [s for s in scripts if not names or any(name in s.stem for name in names)]
    codes = [_run(script.stem) for script in chosen]
    return max(codes, default=0)


def _run(stem: str) -> int:
    command = [sys.executable, "-m", f"benchmarks.{stem}"]
    return subprocess.run(command, check=False, cwd=HERE.parent).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
