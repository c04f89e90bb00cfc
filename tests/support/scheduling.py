"""pytest-xdist's scheduler of groups, which goes on if a process of the run dies.

Release 3.8 hands out a dead process's tests with those that it had finished, and the test in which it died, and gives
its successor one test at a time. All that can leave processes that wait for ever (its issues 1323, 1327 and 1378).
"""

from typing import Any

from xdist.scheduler import LoadGroupScheduling


class Scheduling(LoadGroupScheduling):  # type: ignore[misc]
    def remove_node(self, node: Any) -> str | None:
        """Let others have the tests that a process leaves. Return the one in which it died, None if it has ended."""
        left = self.assigned_work.pop(node)
        died_in = next((test for tests in left.values() for test, is_done in tests.items() if not is_done), None)
        if died_in:
            left[self._split_scope(died_in)][died_in] = True
            self.workqueue.update({group: tests for group, tests in left.items() if not all(tests.values())})
            for other in self.nodes:
                self._reschedule(other)
        return died_in

    def schedule(self) -> None:
        """Hand out tests. A process begins its last one only when it knows that no other follows, so it gets two."""
        super().schedule()
        for node in self.nodes:
            if self._pending_of(self.assigned_work[node]) == 1:
                self._reschedule(node)
