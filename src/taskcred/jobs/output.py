"""What a job prints: decoded, masked, with its progress lines taken out."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from taskcred.domain.masking import begun, mask
from taskcred.domain.secret import Secret

_MARK: Final = "::progress "
_PROGRESS: Final = re.compile(r"::progress (\d{1,9})/(\d{1,9})(?: (.{0,256}))?")
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")  # a line ends with "\n" alone, as terminals see it
_LONGEST_LINE: Final = 1024  # a progress line is shorter


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total`, with a text of up to 256 characters."""

    done: int
    total: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Printed:
    """A part of the output, and the newest progress in it."""

    text: str
    progress: Progress | None


class Output:
    """Collects the bytes of one attempt: UTF-8 with replacement.

    The `secrets` are masked wherever they appear as they are, across reads and lines too. (A job that
    wants to print its stand-in key in disguise can; it is worthless when the attempt has ended.)
    """

    def __init__(self, secrets: tuple[Secret, ...]) -> None:
        # The texts themselves are needed to be found in what the job prints.
        self._secrets = tuple(secret.reveal() for secret in secrets if secret)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._at_line_start = True

    def feed(self, data: bytes) -> None:
        """Take in what was read. A NUL becomes U+FFFD: not every database can keep one."""
        self._pending += self._decoder.decode(data).replace("\0", "\ufffd")

    def take(self, *, final: bool = False) -> Printed:
        """What can be shown now. Held back until `final`: a progress line, or a secret, of which only the
        beginning was read yet."""
        if final:
            self._pending += self._decoder.decode(b"", True).replace("\0", "\ufffd")
        text = mask(self._pending, self._secrets)
        kept = 0 if final else self._held_back(text)
        shown, self._pending = text[: len(text) - kept], text[len(text) - kept :]
        parts: list[str] = []
        progress: Progress | None = None
        for line in _LINES.findall(shown):
            match = _PROGRESS.fullmatch(line.rstrip("\r\n")) if self._at_line_start else None
            if match:
                progress = Progress(int(match[1]), int(match[2]), match[3] or "")
                continue
            parts.append(line)
            self._at_line_start = line.endswith("\n")
        return Printed("".join(parts), progress)

    def _held_back(self, text: str) -> int:
        start = text.rfind("\n") + 1
        last = text[start:]
        at_line_start = start > 0 or self._at_line_start
        if (
            at_line_start
            and last
            and len(last) < _LONGEST_LINE
            and (_MARK.startswith(last) or last.startswith(_MARK))
        ):
            return len(last)
        return begun(last, self._secrets)
