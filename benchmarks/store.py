"""Results while they come: earlier ones stay until all is measured, and a disk that refuses loses nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import machine, report


class Store:
    """The results of one run, in `folder`/<suite>.unfinished.json until it is finished; without a folder, nowhere."""

    def __init__(self, folder: Path | None, suite: str) -> None:
        self.folder, self.suite, self.unfinished = folder, suite, f"{suite}.unfinished"
        self.saved: tuple[Mapping[str, Sequence[object]], Sequence[object]] = ({}, ())
        self.refused = False
        if folder:
            try:  # before minutes are spent
                report.save(folder, self.unfinished, machine.describe(), {}, ())
            except OSError as error:
                sys.exit(f"results cannot be written to {folder}: {error.strerror}. --results takes another folder")

    def save(self, results: Mapping[str, Sequence[object]], verdicts: Sequence[object]) -> None:
        """Keep what was measured so far."""
        self.saved = results, verdicts
        if self.folder:
            try:
                report.save(self.folder, self.unfinished, machine.describe(), *self.saved)
            except OSError as error:
                if not self.refused:
                    print(f"  not saved, measuring goes on: {error}", file=sys.stderr)
                self.refused = True

    def stopped(self) -> int:
        """What to say when somebody has had enough."""
        where = f"; what was measured is in {self._path}" if self.folder else ""
        print(f"\nstopped{where}; earlier results are as they were", file=sys.stderr)
        return 130

    def finish(self) -> int:
        """Put the results in the place of earlier ones, with their page, picture and tables. 1 when the disk refuses;
        the results are printed then."""
        if not self.folder:
            return 0
        try:
            report.save(self.folder, self.suite, machine.describe(), *self.saved)
            self._path.unlink(missing_ok=True)
            report.render(self.folder)
        except OSError as error:
            print(json.dumps({"machine": machine.describe(), "targets": self.saved[1], **self.saved[0]}))
            print(f"results could not be written: {error}. They stand above, as JSON", file=sys.stderr)
            return 1
        return 0

    @property
    def _path(self) -> Path:
        return (self.folder or Path()) / f"{self.unfinished}.json"
