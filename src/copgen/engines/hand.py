"""What does a worker process do with a task? It calls the worker, made at the first task, and tells what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

LONG = 200                                       # characters of a task's name in an error


@dataclass(frozen=True)
class Outcome:
    """What came of a task; the text says why there is no result."""

    kind: Literal["result", "unready", "refused", "broken", "lost"]
    result: Any = None
    text: str = ""

    def error(self, task: Any) -> Exception | None:
        """What to raise for it, if anything."""
        match self.kind:
            case "result":
                return None
            case "unready":                      # what is wrong with the settings has nothing to do with the task
                return ValueError(self.text)
            case "refused" | "lost":
                return ValueError(f"{named(task)}: {self.text}")
        return RuntimeError(f"{named(task)}: failed in its worker\n\n{self.text}")


class Hand:
    """A worker in its process. Errors become outcomes, so that they look the same from every engine."""

    def __init__(self, worker: Callable[..., Callable[[Any], Any]], settings: Mapping[str, Any]) -> None:
        self.worker, self.settings = worker, settings
        self.work: Callable[[Any], Any] | None = None

    def __call__(self, task: Any) -> Outcome:
        try:
            self.work = self.work or self.worker(**self.settings)
        except ValueError as error:
            return Outcome("unready", text=str(error))
        except Exception:
            return Outcome("broken", text=traceback.format_exc())
        try:
            return Outcome("result", self.work(task))
        except ValueError as error:
            return Outcome("refused", text=str(error))
        except Exception:
            return Outcome("broken", text=traceback.format_exc())


def named(task: Any) -> str:
    name = str(task)
    return name if len(name) <= LONG else name[: LONG - 3] + "..."


def lost(times: int, how: str) -> Outcome:
    """The outcome of a task whose workers ended under it."""
    return Outcome("lost", text=f"its worker process ended under it {times} times ({how}); memory may be short: use fewer workers, "
                                "and look for killed processes in the system's log")
