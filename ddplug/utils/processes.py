"""Warm processes that do one task after another: what they load stays loaded, and a crash costs one task.

Each is started by ``spawn``, and ends at once when the process that started it does, however that ends: nobody goes on
with work that a new start asks for too.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any, Protocol

from ddplug.errors import DdplugError, OptionError
from ddplug.utils.text import one_line

__all__ = ["Hear", "LostError", "Pool", "Task"]

Hear = Callable[..., object]
"""Is told something while a task is done; what it raises ends the task."""

_GRACE = 2.0
"""Seconds that a task may take beyond its limit before its process is ended."""

_spawn = get_context("spawn")
_starting = threading.Lock()
"""Held while the environment is that of another process."""


class Task(Protocol):
    """What a process can do; it is sent as a pickle, and so is what it returns or raises."""

    def load(self) -> object:
        """Get ready; the time limit counts from the end of this."""

    def __call__(self, tell: Hear, /) -> Any:
        """Do it, and tell how it goes."""


class LostError(DdplugError, RuntimeError):
    """The process of a task ended before the task did.

    Attributes:
        pid: of the process.
        late: it was ended because it took longer than it may.
    """

    def __init__(self, message: str, pid: int, late: bool = False) -> None:
        super().__init__(message)
        self.pid = pid
        self.late = late


class _StopError(Exception):
    """Who hears has had enough."""


class _Pickler(pickle.Pickler):
    """Writes a task, and a name where something stands in it that is sent once a process."""

    def __init__(self, file: io.BytesIO, once: type) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._once = once
        self.found: dict[int, Any] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, self._once):
            return None
        self.found[id(value)] = value
        return id(value)


class _Unpickler(pickle.Unpickler):
    """Reads a task, and puts what came before it into its places."""

    def __init__(self, content: bytes, known: Mapping[int, Any]) -> None:
        super().__init__(io.BytesIO(content))
        self._known = known

    def persistent_load(self, name: int) -> Any:
        return self._known[name]


def _packed(task: Task, once: type) -> tuple[bytes, dict[int, Any]]:
    """Write a task for another process, and what of it is sent once."""
    content = io.BytesIO()
    pickler = _Pickler(content, once)
    try:
        pickler.dump(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise OptionError(
            f"{one_line(error)}, and so it cannot be sent to another process; give a name, or a function of a module "
            "with functools.partial for its arguments"
        ) from None
    return content.getvalue(), pickler.found


def _serve(connection: Connection, prepare: Callable[[], object]) -> None:
    """Do tasks until there are no more: the life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()
    known: dict[int, Any] = {}
    with suppress(EOFError, OSError):
        connection.send(("ready", None))
        while True:
            name, content = connection.recv()
            if name is None:
                connection.send(_answer(connection, content, known))
            else:
                known[name] = pickle.loads(content)


def _end_with_parent() -> None:
    """End this process when the one that started it does."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(connection: Connection, content: bytes, known: Mapping[int, Any]) -> tuple[str, Any]:
    """Do a task, and say what came of it."""

    def tell(*values: Any) -> None:
        connection.send(("told", values))
        if not connection.recv():
            raise _StopError

    try:
        task = _read(content, known)
        task.load()
        connection.send(("began", None))
        return "done", task(tell)
    except _StopError:
        return "stopped", None
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # errors are classes of anybody's
            return "raised", DdplugError(f"{type(error).__name__}: {one_line(error)}")
        return "raised", error


def _read(content: bytes, known: Mapping[int, Any]) -> Any:
    try:
        return _Unpickler(content, known).load()
    except Exception as error:  # reading imports the modules of others
        raise OptionError(
            f"{one_line(error)}, and so another process cannot read it; use functions of a module, or of a script "
            "whose work stands under `if __name__ == '__main__':`"
        ) from None


class _Process:
    """One process, started anew whenever it has ended."""

    def __init__(self, prepare: Callable[[], object], environment: Mapping[str, str], once: type) -> None:
        self._prepare, self._environment, self._once = prepare, environment, once
        self.start()

    def start(self) -> None:
        """Start it; it is ready when it has prepared itself."""
        ours, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_serve, args=(theirs, self._prepare), daemon=True)
        with _starting:
            before = dict(os.environ)
            os.environ.update(self._environment)
            try:
                self._process.start()
            finally:
                for name in self._environment.keys() - before.keys():
                    del os.environ[name]
                os.environ.update(before)
        theirs.close()
        self._connection, self._ready = ours, False
        # by what they are called, and kept, lest another value gets the name
        self._sent: dict[int, Any] = {}

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def run(self, task: Task, limit: float | None, hear: Hear) -> Any:
        """Do a task; see :meth:`Pool.run`."""
        content, found = _packed(task, self._once)
        if not self._process.is_alive():
            self.end()
            self.start()
        try:
            if not self._ready:
                self._connection.recv()
                self._ready = True
            for name in found.keys() - self._sent.keys():
                # pickled here: what a connection pickles goes through shared memory, of which there may be little
                self._connection.send((name, pickle.dumps(found[name])))
                self._sent[name] = found[name]
            self._connection.send((None, content))
            return self._heard(limit, hear)
        except (EOFError, OSError):
            raise self._lost() from None

    def _heard(self, limit: float | None, hear: Hear) -> Any:
        """Hear what the process says until it has done its task."""
        refusal: BaseException | None = None
        wait: float | None = None
        while True:
            if not self._connection.poll(None if wait is None else max(0.0, wait - time.monotonic())):
                raise LostError(f"its process took longer than {limit:g} s and was ended", self._pid, late=True)
            kind, value = self._connection.recv()
            if kind == "began":
                wait = None if limit is None else time.monotonic() + limit + _GRACE
            elif kind == "told":
                try:
                    hear(*value)
                except Exception as error:
                    refusal = error
                self._connection.send(refusal is None)
            elif kind == "done":
                return value
            else:
                raise refusal or value

    @property
    def _pid(self) -> int:
        return self._process.pid or 0

    def _lost(self) -> DdplugError:
        """Say how the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0 and not self._ready:
            return DdplugError(
                f"a process ended before it was ready (exit code {code}), for what is said above; what starts "
                "processes in a script stands under `if __name__ == '__main__':`"
            )
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return LostError(f"its process {how}", self._pid)


class Pool:
    """Processes that do tasks; threads may ask at once.

    Args:
        environments: of each process, what it has besides the variables of this one.
        prepare: what each does first; a function of a module.
        once: values of this class within tasks are sent once to each process.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]], prepare: Callable[[], object], once: type) -> None:
        self._all = [_Process(prepare, environment, once) for environment in environments]
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        for process in self._all:
            self._idle.put(process)

    def run(self, task: Task, limit: float | None = None, hear: Hear = lambda *values: None) -> Any:
        """Have the next idle process do a task, and return what it returns.

        Args:
            task: what to do.
            limit: seconds, soon after which its process is ended; ``None`` waits for ever.
            hear: is told what the task tells. What it raises ends the task, and goes through.

        Raises:
            OptionError: the task cannot be sent, or not be read there.
            LostError: the process ended, or was ended at its limit; another is there for the next task.
            DdplugError: the processes do not start, or were ended.
        """
        process = self._idle.get()
        try:
            if not self._all:
                raise DdplugError("the processes were ended; use them within their `with` block")
            return process.run(task, limit, hear)
        except (LostError, KeyboardInterrupt, SystemExit):
            process.end()
            if self._all:
                process.start()
            raise
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End all processes, whatever they do; a second call does nothing."""
        ended, self._all = self._all, []
        for process in ended:
            process.end()
