"""What an exception of a runner means: for one step, or for the process.

Libraries are told apart by the names of their classes, so that nothing is imported
for it. What is made here has no traceback: a traceback keeps the frames of the model
alive, and with them the tensors that there was no memory for.
"""

from __future__ import annotations

from llmkernel.errors import (
    DeviceOutOfMemory,
    EngineDied,
    LLMKernelError,
    StepFailed,
)

_NO_MEMORY = {"OutOfMemoryError", "MemoryError"}
_LOST = {"AcceleratorError"}
_LOST_MESSAGES = ("CUDA error", "HIP error")
"""An error of the device is said again for everything that follows: the process has to go."""


_IN_A_ROW = 3
"""Failed steps after which the device, not the requests, is taken to be broken."""


class Failures:
    """The failed steps since the last one that came through."""

    def __init__(self) -> None:
        self.without_memory = 0
        """Those that the device had no memory for; making them smaller helps."""
        self._others = 0

    def none(self) -> None:
        """A step came through."""
        self.without_memory = self._others = 0

    def understand(self, error: Exception) -> LLMKernelError:
        """DeviceOutOfMemory, or else what the requests of the step are to end with.

        Raises EngineDied where there is no use in going on.
        """
        failure = _meaning(error)
        if isinstance(failure, DeviceOutOfMemory):
            self.without_memory += 1
            return failure
        self._others += 1
        if isinstance(failure, EngineDied):
            raise failure from error
        if self._others >= _IN_A_ROW:
            message = f"{self._others} steps in a row failed; the worker leaves."
            raise EngineDied(message) from error
        return failure


def _meaning(error: Exception) -> LLMKernelError:
    if isinstance(error, LLMKernelError):
        return type(error)(error.message, **error.data)
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _NO_MEMORY:
        return DeviceOutOfMemory("The device had no memory for a step of this request.")
    if names & _LOST or any(message in str(error) for message in _LOST_MESSAGES):
        return EngineDied("The device reported an error that this process cannot recover from.")
    return StepFailed("The step of this request failed.")
