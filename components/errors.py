"""What can go wrong, as one tree. Every message says what, where, why and the way out.

TidemillError                    exit code 1
├── ParamsError              2   params.yaml or the command line is wrong (all faults at once)
├── DataError                3   a dataset is absent, damaged or not what was promised
│   ├── DatasetChanged       3   its bytes differ from the version that data.dvc names
│   ├── BadInput             3   a table given for scoring does not fit the model
│   └── Drifted              3   its rows are unlike those that the model was trained on, and params.yaml says block
├── ValidationFailed         4   the data broke an expectation; nothing was trained
├── TrainingFailed           5   no trial of a sweep ended with a usable result
├── RegistryError            6   no champion, or a model whose files are not what was registered
├── Unreachable              7   MLflow, Prefect, Ray or the storage does not answer at its address
├── Busy                     8   somebody else works on the same pipeline or output now
├── NoRoom                   1   a disk is full; what was written before is whole
└── NotReproduced           10   a version that was trained again came out otherwise
"""

from __future__ import annotations

import re
from typing import ClassVar

# scheme://user:password@ ; a database's password may hold a slash, a web address goes on after its own.
_CREDENTIALS = re.compile(
    r"""(\bhttps?://[^\s/?#:@'"]*):[^\s/?#'"]+@|(\b(?!https?:)[\w+.-]+://[^\s/?#:@'"]*):[^\s'"]+@"""
)


def hidden(text: str) -> str:
    """The text with the passwords of addresses in it (scheme://user:password@host) as ***."""
    return _CREDENTIALS.sub(lambda found: f"{found[1] or found[2]}:***@", text)


class TidemillError(Exception):
    """A fault that the person at the keyboard can put right.

    `what` happened, `where` (a file, a line, an address, a column), `why`, and the `fix`: the command or
    edit that puts it right. Only `what` must be given; the message has a line for each that is. Addresses in them lose
    their passwords here, since messages go to terminals, logs and servers.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        self.what, self.where, self.why, self.fix = hidden(what), hidden(where), hidden(why), hidden(fix)
        super().__init__(self.what, self.where, self.why, self.fix)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        rest = [f"  why: {self.why}"] if self.why else []
        rest += [f"  fix: {self.fix}"] if self.fix else []
        return "\n".join([head, *rest])

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (Ray, Prefect): keyword-only arguments need telling.
        return _again, (type(self), self.what, self.where, self.why, self.fix)


def _again(kind: type[TidemillError], what: str, where: str, why: str, fix: str) -> TidemillError:
    return kind(what, where=where, why=why, fix=fix)


class ParamsError(TidemillError):
    exit_code = 2


class DataError(TidemillError):
    exit_code = 3


class DatasetChanged(DataError):
    pass


class BadInput(DataError):
    pass


class Drifted(DataError):
    pass


class ValidationFailed(TidemillError):
    exit_code = 4


class TrainingFailed(TidemillError):
    exit_code = 5


class RegistryError(TidemillError):
    exit_code = 6


class Unreachable(TidemillError):
    exit_code = 7


class Busy(TidemillError):
    exit_code = 8


class NoRoom(TidemillError):
    pass


class NotReproduced(TidemillError):
    exit_code = 10
